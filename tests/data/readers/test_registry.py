from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.registry import (
    FORMATS,
    get_format,
    recognise_format,
    recognise_records,
)
from tripletune.data.readers.source import Head
from tripletune.errors import DataError


def test_every_format_has_its_own_name() -> None:
    names = [known.name for known in FORMATS]
    assert len(names) == 22
    assert len(set(names)) == len(names)
    assert all(get_format(name).name == name for name in names)


def test_unknown_format_lists_the_known() -> None:
    with pytest.raises(DataError, match="'xml' is unknown; accepted are canonical, spo_list"):
        get_format("xml")


def test_majority_of_the_first_records_decides() -> None:
    records = ({"text": "a"}, {"text": "a", "spo_list": []}, {"text": "b", "spo_list": []})
    assert recognise_format(Head(Path("f"), (), records)).name == "spo_list"
    known = recognise_records(records)
    assert known is not None
    assert known.name == "spo_list"
    assert recognise_records([{"a": 1}]) is None


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Head(Path("f"), ("hello",)), "first line is 'hello'"),
        (Head(Path("f"), ("未知 0", "合作 1")), "is a relation schema"),
        (Head(Path("f"), ("?",), (), b"PK\x03\x04"), "Excel file"),
        (Head(Path("f"), (), ({"text": "a"},)), "for canonical .* it lacks 'triplets'"),
        (Head(Path("f"), (), ({"input": "a"},)), "lacks 'instruction', 'output'"),
        (
            Head(Path("f"), (), ({"predicate": "", "subject_type": "", "object_type": ""},)),
            "is a relation schema",
        ),
    ],
)
def test_unknown_file_is_described(head: Head, message: str) -> None:
    with pytest.raises(DataError, match=message):
        recognise_format(head)
