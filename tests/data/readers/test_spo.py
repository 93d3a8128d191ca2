from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tripletune.data.readers.problem import Problems
from tripletune.data.readers.spo import parse_spo_record
from tripletune.errors import DataError
from tripletune.schema import Triplet


def parse(entry: object, problems: Problems | None = None) -> Triplet:
    record = {"text": "t", "spo_list": [entry], "postag": []}
    (example,) = parse_spo_record(record, problems or Problems(Path("f")))
    (triplet,) = example.triplets
    return triplet


def test_plain_objects_are_read() -> None:
    entry = {
        "predicate": "r",
        "subject": "a",
        "object": "b",
        "subject_type": "A",
        "object_type": "B",
    }
    triplet = parse(entry)
    assert (*triplet.key, triplet.subject_type, triplet.object_type) == ("a", "r", "b", "A", "B")


def test_object_slots_are_kept_and_empty_ones_left_out() -> None:
    triplet = parse(
        {
            "predicate": "获奖",
            "subject": "甲",
            "subject_type": "娱乐人物",
            "object": {"onDate": "2011年", "@value": "影帝", "inWork": ""},
            "object_type": {"onDate": "Date", "@value": "奖项", "inWork": "作品"},
        }
    )
    assert triplet.key == ("甲", "获奖", "影帝")
    assert triplet.object_type == "奖项"
    assert triplet.object_slots == (("onDate", "2011年"),)


def test_combined_triplets_are_counted() -> None:
    problems = Problems(Path("f"))
    entry = {"Combined": True, "predicate": "r", "subject": "a", "object": {"@value": "b"}}
    assert parse(entry, problems).key == ("a", "r", "b")
    assert problems.tallies == {"combined triplets": 1, "field 'postag' left out": 1}


def test_lists_of_three_are_read() -> None:
    assert parse(["a", "r", "b"]).key == ("a", "r", "b")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"predicate": "r", "subject": "a"}, "'object' is missing"),
        ({"predicate": "r", "subject": "a", "object": {"x": "y"}}, "'@value' is missing"),
        ({"predicate": "r", "subject": "", "object": "b"}, "subject: '' is empty"),
        ({"predicate": "r", "subject": "a", "object": {"@value": "b", "s": 3}}, "'s': 3"),
        ({"predicate": "r", "subject": "a", "object": "b", "subject_type": 3}, "3 is not"),
        ("x", "'x' is not a JSON object"),
    ],
)
def test_unusable_entries_are_named(entry: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse(entry)
