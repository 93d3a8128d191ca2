from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers import (
    detect_format,
    load_examples,
    open_examples,
    read_examples,
    read_rows,
)
from tripletune.data.readers.problem import Problem, Problems
from tripletune.errors import DataError
from tripletune.schema import Example

LINES = '{"text": "a", "triplets": []}\n{"text": "b"}\n{"text": "c", "triplets": []}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.jsonl"
    path.write_text(LINES, encoding="utf-8")
    return path


def test_first_unusable_record_raises_with_its_line(path: Path) -> None:
    examples = read_examples(path)
    assert next(examples) == Example("a")
    with pytest.raises(DataError, match=r"x\.jsonl:2: field 'triplets' is missing"):
        next(examples)


def test_reading_goes_on_when_problems_are_collected(path: Path) -> None:
    found: list[Problem] = []
    assert [e.text for e in read_examples(path, on_problem=found.append)] == ["a", "c"]
    assert [(p.line, p.reason, p.action) for p in found] == [(2, "missing_field", "dropped record")]


def test_missing_file_raises_before_the_first_example(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_examples(tmp_path / "none.jsonl")


def test_named_format_is_used_whatever_the_content(path: Path) -> None:
    with pytest.raises(DataError, match="'spo_list' is missing; the record has 'text', 'triplets'"):
        load_examples(path, format="spo_list")


def test_folder_of_nothing_known_is_refused(path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        detect_format(path.parent)


def test_open_examples_keeps_the_line_up_to_date(path: Path) -> None:
    problems = Problems(path, lambda problem: None)
    lines = [(example.text, problems.line) for example in open_examples(path, problems)]
    assert lines == [("a", 1), ("c", 3)]


def test_rows_in_memory_are_read() -> None:
    assert list(read_rows([{"text": "a", "triplets": []}])) == [Example("a")]
