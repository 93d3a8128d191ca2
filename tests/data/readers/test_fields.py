from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.fields import (
    add_triplet,
    build_example,
    get_field,
    get_list,
    get_mapping,
    get_text,
    merge_triplets,
)
from tripletune.data.readers.problem import Problem, Problems, RecordFault
from tripletune.schema import Triplet


def test_get_field_names_the_fields_there_are() -> None:
    with pytest.raises(RecordFault, match="'b' is missing; the record has 'a'"):
        get_field({"a": 1}, "b")


def test_typed_fields_name_the_value() -> None:
    with pytest.raises(RecordFault, match="5 is not a string"):
        get_text({"a": 5}, "a")
    with pytest.raises(RecordFault, match="'x' is not a list"):
        get_list({"a": "x"}, "a")
    with pytest.raises(RecordFault, match="thing: 3 is not a JSON object"):
        get_mapping(3, "thing")


@pytest.mark.parametrize(
    ("items", "reason"), [(("a", "r", ""), "empty_item"), (("a", "r", None), "wrong_type")]
)
def test_add_triplet_reports_an_item_it_cannot_use(items: tuple[object, ...], reason: str) -> None:
    found: list[Problem] = []
    triplets: list[Triplet] = []
    add_triplet(triplets, Problems(Path("f"), found.append), *items)
    assert (triplets, [p.reason for p in found]) == ([], [reason])


def test_merge_triplets_keeps_those_that_differ_in_slots() -> None:
    plain = Triplet("a", "r", "b")
    slotted = Triplet("a", "r", "b", object_slots=(("onDate", "c"),))
    found: list[Problem] = []
    merged = merge_triplets([plain, slotted, plain], Problems(Path("f"), found.append))
    assert [triplet.object_slots for triplet in merged] == [(), (("onDate", "c"),)]
    assert [p.reason for p in found] == ["repeated_triplet"]


def test_build_example_refuses_an_empty_text() -> None:
    with pytest.raises(RecordFault, match="empty"):
        build_example(Problems(Path("f")), "\t", [])


def test_build_example_takes_text_and_number_ids_only() -> None:
    problems = Problems(Path("f"))
    assert [build_example(problems, "a", [], i).id for i in ("x", 4, None, [1])] == [
        "x",
        "4",
        None,
        None,
    ]
