from __future__ import annotations

import json
from pathlib import Path

import pytest

from tripletune.errors import AdapterError
from tripletune.extraction.loading import load_adapter


def test_load_adapter_refuses_a_folder_without_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"has no readable adapter_config\.json"):
        load_adapter(tmp_path)


def test_load_adapter_refuses_an_adapter_without_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": None}), encoding="utf-8"
    )
    with pytest.raises(AdapterError, match=r"base_model_name_or_path is None; name the base"):
        load_adapter(tmp_path)


def test_load_adapter_refuses_a_damaged_schema(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "embedded"}', encoding="utf-8"
    )
    (tmp_path / "schema.json").write_text("[", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"has no readable schema\.json"):
        load_adapter(tmp_path)
