from __future__ import annotations

import json

import pytest

from tripletune.cli.runs import (
    compare_records,
    find_run_folders,
    read_records,
    runs,
    summarise,
)
from tripletune.errors import DataError
from tripletune.training.run_record import RECORD_FILE


def make_record(**changes):
    record = {
        "format": 1,
        "status": "finished",
        "data": {},
        "versions": {},
        "started": "2026-11-24T01:02:03+00:00",
        "settings": {"model_name": "embedded", "learning_rate": 0.002},
        "result": {
            "steps": 171,
            "metrics": {"eval_f1": 0.99, "eval_loss": 0.0035},
            "best_metric": 1.0,
            "train_seconds": 3725.4,
        },
    }
    return record | changes


def write(folder, record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE).write_text(json.dumps(record), encoding="utf-8")


def test_folders_are_the_places_and_those_below(tmp_path):
    write(tmp_path / "a", make_record())
    write(tmp_path / "b", make_record())
    (tmp_path / "empty").mkdir()
    assert find_run_folders([tmp_path]) == [tmp_path / "a", tmp_path / "b"]
    assert find_run_folders([tmp_path / "b"]) == [tmp_path / "b"]


def test_no_record_anywhere_is_an_error_that_names_the_place(tmp_path):
    with pytest.raises(DataError, match=r"no run\.json in .*nothing"):
        find_run_folders([tmp_path / "nothing"])


def test_records_come_newest_first_and_damaged_ones_are_told(tmp_path):
    write(tmp_path / "old", make_record(started="2026-01-01T00:00:00+00:00"))
    write(tmp_path / "new", make_record())
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / RECORD_FILE).write_text('{"format": 1, ', encoding="utf-8")
    folders = [tmp_path / name for name in ("old", "new", "torn")]
    records, damaged = read_records(folders)
    assert [folder.name for folder, _ in records] == ["new", "old"]
    assert len(damaged) == 1
    assert str(tmp_path / "torn") in damaged[0]


def test_row_of_a_run(tmp_path):
    assert summarise(tmp_path, make_record())[1:] == [
        "完成",
        "2026-11-24 01:02",
        "embedded",
        "171",
        "0.99",
        "0.0035",
        "1",
        "1:02:05",
    ]


def test_run_that_nobody_runs_any_more_was_killed(tmp_path):
    assert summarise(tmp_path, make_record(status="running"))[1] == "被终止"


def test_comparison_lists_only_what_differs():
    first = make_record()
    second = make_record(settings={"model_name": "embedded", "learning_rate": 0.001})
    assert compare_records([first, second]) == [["settings.learning_rate", "0.002", "0.001"]]


def test_command_prints_whole_records_as_json(tmp_path, capsys):
    write(tmp_path / "a", make_record())
    assert runs([tmp_path], as_json=True) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown == {"output_dir": str(tmp_path / "a"), **make_record()}


def test_command_says_1_when_a_record_is_damaged(tmp_path, capsys):
    write(tmp_path / "a", make_record())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / RECORD_FILE).write_text("no json", encoding="utf-8")
    assert runs([tmp_path]) == 1
    captured = capsys.readouterr()
    assert "embedded" in captured.out
    assert "无法读取" in captured.err
