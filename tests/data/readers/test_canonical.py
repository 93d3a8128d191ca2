from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.canonical import parse_canonical_record
from tripletune.data.readers.problem import Problem, Problems
from tripletune.errors import DataError
from tripletune.schema import Triplet

ITEM = {"subject": "甲", "relation": "位于", "object": "乙"}


def test_canonical_keeps_repeated_triplets_as_they_stand() -> None:
    record = {"id": 3, "text": "甲位于乙", "triplets": [ITEM, ITEM]}
    (example,) = parse_canonical_record(record, Problems(Path("f")))
    assert example.triplets == (Triplet("甲", "位于", "乙"),) * 2
    assert example.id == "3"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "a"}, "'triplets' is missing"),
        ({"text": " ", "triplets": []}, "' ' is empty"),
        ({"text": 5, "triplets": []}, "5 is not a string"),
        ({"text": "a", "triplets": "x"}, "'x' is not a list"),
        ({"text": "a", "triplets": [{**ITEM, "object": " "}]}, "object: ' ' is empty"),
        ({"text": "a", "triplets": [{"subject": "x"}]}, "'relation' is missing"),
    ],
)
def test_canonical_names_what_is_wrong(record: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(parse_canonical_record(record, Problems(Path("f"))))


def test_canonical_reports_fields_it_has_no_place_for() -> None:
    found: list[Problem] = []
    record = {"text": "a", "triplets": [], "source": "web"}
    (example,) = parse_canonical_record(record, Problems(Path("f"), found.append))
    assert example.text == "a"
    assert [(p.reason, p.action) for p in found] == [("field_left_out", "changed")]
    assert "'source'" in found[0].message


def test_canonical_reports_fields_of_a_triplet_it_has_no_place_for() -> None:
    found: list[Problem] = []
    record = {"text": "a", "triplets": [{**ITEM, "evidence": "a", "confidence": 0.5}]}
    (example,) = parse_canonical_record(record, Problems(Path("f"), found.append))
    assert example.triplets[0].confidence == 0.5
    assert [(p.reason, "'evidence'" in p.message) for p in found] == [("field_left_out", True)]


def test_canonical_record_that_lost_all_triplets_is_no_negative() -> None:
    found: list[Problem] = []
    record = {"text": "a", "triplets": [{**ITEM, "object": ""}]}
    with pytest.raises(DataError, match="none of the 1 triplets"):
        list(parse_canonical_record(record, Problems(Path("f"), found.append)))
    assert [(p.reason, p.action) for p in found] == [("empty_item", "dropped triplet")]
