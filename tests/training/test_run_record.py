from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tripletune.config import TrainingSettings
from tripletune.errors import DataError, OutputError
from tripletune.training.run_record import (
    build_run_record,
    find_changed_data,
    find_git_state,
    read_run_record,
    recorded_run,
    write_run_record,
)


@pytest.fixture
def settings(tmp_path) -> TrainingSettings:
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").write_text(name, encoding="utf-8")
    (tmp_path / "out").mkdir()
    return TrainingSettings(
        train_file=tmp_path / "train.jsonl",
        validation_file=tmp_path / "val.jsonl",
        output_dir=tmp_path / "out",
        seed=7,
    )


def read(settings: TrainingSettings) -> dict:
    return json.loads((settings.output_dir / "run.json").read_text(encoding="utf-8"))


def test_record_says_what_the_run_is(settings, monkeypatch):
    import torch
    import transformers

    monkeypatch.setattr(sys, "argv", ["train.py", "--seed", "7"])
    record = build_run_record(settings, resumed_from=None)
    assert record["command"] == [sys.executable, "train.py", "--seed", "7"]
    assert record["seed"] == 7
    assert record["settings"]["learning_rate"] == 2e-4
    assert record["data"]["train_file"] == {
        "path": str(settings.train_file),
        "bytes": 5,
        "sha256": hashlib.sha256(b"train").hexdigest(),
    }
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"][
        "torch"
    ] == str(torch.__version__)
    assert record["versions"]["transformers"] == transformers.__version__
    assert record["hardware"]["num_cores"] >= 1
    assert json.loads(json.dumps(record)) == record


def test_record_of_missing_data_has_no_hash(settings):
    settings.train_file.unlink()
    record = build_run_record(settings, resumed_from=None)
    assert record["data"]["train_file"]["sha256"] is None


def test_run_that_ends_is_finished_and_names_its_adapter(settings):
    with recorded_run(settings, resumed_from=None) as record:
        assert read(settings)["status"] == "running"
        record["result"]["steps"] = 3
        (settings.output_dir / "adapter_model.safetensors").write_bytes(b"weights")
    done = read(settings)
    assert (done["status"], done["result"]["steps"]) == ("finished", 3)
    assert done["result"]["adapter_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert done["ended"] >= done["started"]


def test_run_that_is_interrupted_says_so(settings):
    with pytest.raises(KeyboardInterrupt), recorded_run(settings, resumed_from=None):
        raise KeyboardInterrupt
    assert read(settings)["status"] == "interrupted"


def test_run_that_fails_says_why(settings):
    with pytest.raises(ValueError, match="why"), recorded_run(settings, resumed_from=None):
        raise ValueError("why")
    assert (read(settings)["status"], read(settings)["error"]) == ("failed", "ValueError: why")


def test_resumed_run_keeps_its_earlier_starts_and_sees_changed_data(settings):
    for _ in range(2):
        with recorded_run(settings, resumed_from="checkpoint-5") as record:
            assert find_changed_data(record) == []
    settings.train_file.write_text("other", encoding="utf-8")
    with recorded_run(settings, resumed_from="checkpoint-5") as record:
        assert find_changed_data(record) == [str(settings.train_file)]
    assert [start["status"] for start in read(settings)["earlier_starts"]] == ["finished"] * 2


def test_new_run_has_no_earlier_starts(settings):
    for _ in range(2):
        with recorded_run(settings, resumed_from=None) as record:
            assert record["earlier_starts"] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no readable run record"),
        ("[" * 100_000, "no readable run record"),
        ("[]", "no run record of format 1"),
        ('{"format": 2}', "no run record of format 1"),
        ('{"format": 1, "settings": {}, "data": []}', "run record without data"),
        (
            '{"format": 1, "settings": {}, "data": {}, "versions": {}, "result": {}, '
            '"earlier_starts": [1]}',
            "run record whose earlier_starts is no list of starts",
        ),
        (" " * (16 << 20) + "{}", "above 16777216 bytes"),
    ],
)
def test_record_that_is_damaged_is_refused_with_its_path(tmp_path, content, message):
    path = tmp_path / "run.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_run_record(path)
    assert caught.value.path == path


def test_resumed_run_goes_on_without_a_record_that_is_damaged(settings, caplog):
    (settings.output_dir / "run.json").write_text('{"format": 1', encoding="utf-8")
    with recorded_run(settings, resumed_from="checkpoint-5") as record:
        assert record["earlier_starts"] == []
    assert read(settings)["status"] == "finished"
    assert "之前的运行记录无法读取" in caplog.text


def test_record_of_a_name_that_is_no_utf_8_is_read_again(tmp_path):
    facts: dict[str, Any] = {n: {} for n in ("settings", "data", "versions", "result")}
    record = {"format": 1, **facts, "earlier_starts": [], "command": ["甲", "\udcff"]}
    assert read_run_record(write_run_record(tmp_path, record)) == record


def test_record_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"run record: .*No such file"):
        write_run_record(tmp_path / "none", {})


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_state_is_commit_and_whether_files_changed(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert find_git_state(tmp_path) == {"commit": commit, "changed": False}
    (tmp_path / "a").write_text("2")
    assert find_git_state(tmp_path) == {"commit": commit, "changed": True}


def test_git_state_is_none_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "plain"
    folder.mkdir()
    assert find_git_state(folder) is None
