from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tripletune.errors import AdapterError, OutputError
from tripletune.extraction.loading import ReadingSettings, load_adapter, save_reading_settings


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


def test_save_reading_settings_writes_what_training_texts_suggest(tmp_path: Path) -> None:
    assert save_reading_settings(tmp_path, ["甲" * 70, "乙"]) == ReadingSettings(70, None)
    written = json.loads((tmp_path / "extraction.json").read_text(encoding="utf-8"))
    assert written == {"window_chars": 70, "relations_per_prompt": None}


def test_save_reading_settings_reports_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/extraction\.json: cannot be written"):
        save_reading_settings(tmp_path / "none", [])


@pytest.mark.parametrize("name", ["window_chars", "relations_per_prompt"])
@pytest.mark.parametrize("value", ["9", 0, True, [1]])
def test_load_adapter_refuses_a_setting_that_is_no_number(
    tmp_path: Path, name: str, value: object
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "embedded"}', encoding="utf-8"
    )
    (tmp_path / "extraction.json").write_text(json.dumps({name: value}), encoding="utf-8")
    with pytest.raises(AdapterError, match=re.escape(f"{name} {value!r} is not a number")):
        load_adapter(tmp_path)
