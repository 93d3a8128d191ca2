from __future__ import annotations

import os

import pytest

from tripletune.data.generator.output import Line, write_files
from tripletune.data.generator.report import Measures
from tripletune.errors import ConfigError, OutputError
from tripletune.schema import Example

EMPTY = Line(
    b"1",
    '{"text": "下雨了。", "triplets": []}',
    Measures(0, 4, 0, False, False, False, False, False, 0.0, ()),
)
FULL = Line(
    b"2",
    '{"text": "甲在乙。", "triplets": [{"subject": "甲", "relation": "位于", "object": "乙"}]}',
    Measures(1, 4, 0, False, False, False, False, False, 2.0, ("位于",)),
)


def broken():
    yield FULL
    raise ConfigError("no more")


def test_write_files_writes_the_lines(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    (summary,) = write_files({path: [EMPTY, FULL]}, [2])
    assert path.read_bytes().decode() == f"{EMPTY.text}\n{FULL.text}\n"
    assert (summary.num_examples, summary.num_triplets, summary.num_empty) == (2, 1, 1)
    assert (summary.num_relations, summary.mean_characters) == (1, 4.0)
    assert summary.sample.text == "甲在乙。"
    assert os.listdir(path.parent) == ["a.jsonl"]


def test_line_gives_its_example_back():
    assert FULL.example() == Example.from_record(
        {"text": "甲在乙。", "triplets": [{"subject": "甲", "relation": "位于", "object": "乙"}]}
    )


def test_write_files_leaves_the_old_file_when_a_line_fails(tmp_path):
    old = tmp_path / "a.jsonl"
    old.write_text("old\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no more"):
        write_files({old: broken()}, [2])
    assert os.listdir(tmp_path) == ["a.jsonl"]
    assert old.read_text(encoding="utf-8") == "old\n"


def test_write_files_replaces_nothing_before_all_are_complete(tmp_path):
    with pytest.raises(ConfigError, match="no more"):
        write_files({tmp_path / "a.jsonl": [FULL], tmp_path / "b.jsonl": broken()}, [1, 2])
    assert os.listdir(tmp_path) == []


def test_write_files_refuses_an_empty_file(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.jsonl: no sentence to write"):
        write_files({tmp_path / "a.jsonl": []}, [0])


def test_write_files_names_a_place_that_is_a_folder(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"a\.jsonl: cannot be replaced"):
        write_files({tmp_path / "a.jsonl": [FULL]}, [1])
    assert os.listdir(tmp_path) == ["a.jsonl"]
