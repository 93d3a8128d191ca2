from __future__ import annotations

import os
from pathlib import Path

import pytest

from tripletune.cli.adapters import find_adapter
from tripletune.errors import AdapterError


def write_adapter(folder: Path, *, seconds: int) -> Path:
    folder.mkdir(parents=True)
    config = folder / "adapter_config.json"
    config.write_text("{}", encoding="utf-8")
    os.utime(config, (seconds, seconds))
    return folder


def test_find_adapter_takes_the_given_folder(tmp_path):
    folder = write_adapter(tmp_path / "mine", seconds=1)
    assert find_adapter(str(folder), root=tmp_path / "output") == folder


def test_find_adapter_takes_the_one_written_last(tmp_path):
    write_adapter(tmp_path / "a", seconds=100)
    newest = write_adapter(tmp_path / "b", seconds=300)
    write_adapter(tmp_path / "c", seconds=200)
    assert find_adapter(None, root=tmp_path) == newest


def test_find_adapter_does_not_take_a_checkpoint(tmp_path):
    folder = write_adapter(tmp_path / "run", seconds=100)
    write_adapter(folder / "checkpoint-50", seconds=200)
    assert find_adapter(None, root=tmp_path) == folder


def test_find_adapter_says_that_a_folder_holds_none(tmp_path):
    with pytest.raises(AdapterError, match=r"adapter: '.*' holds no adapter_config\.json; give"):
        find_adapter(str(tmp_path))


def test_find_adapter_says_how_to_get_one(tmp_path):
    with pytest.raises(AdapterError, match=r"train_pure_python\.py.*--adapter DIR"):
        find_adapter(None, root=tmp_path / "output")
