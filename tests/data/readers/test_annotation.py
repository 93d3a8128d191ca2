from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tripletune.data.readers.annotation import (
    build_span,
    parse_dump_record,
    parse_offset_record,
    parse_relation_record,
    parse_span_record,
)
from tripletune.data.readers.problem import Problem, Problems, RecordFault
from tripletune.errors import DataError
from tripletune.schema import Example, Span, Triplet

TEXT = "车门异响"


def collect() -> tuple[list[Problem], Problems]:
    found: list[Problem] = []
    return found, Problems(Path("f"), found.append)


def describe(example: Example) -> list[tuple[Any, ...]]:
    return [(*t.key, t.subject_span, t.object_span) for t in example.triplets]


def test_offset_record_keeps_spans_that_enclose_their_names() -> None:
    entry = {"h": {"name": "车门", "pos": [0, 2]}, "t": {"name": "异响", "pos": [2, 4]}}
    record = {"ID": "A1", "text": TEXT, "spo_list": [{**entry, "relation": "部件故障"}]}
    (example,) = parse_offset_record(record, Problems(Path("f")))
    assert describe(example) == [("车门", "部件故障", "异响", Span(0, 2), Span(2, 4))]
    assert example.id == "A1"


@pytest.mark.parametrize("position", [[1, 3], [2, 9], ["a", 4], [3, 3], "x"])
def test_offset_record_keeps_the_name_where_the_span_is_wrong(position: object) -> None:
    entry = {"h": {"name": "车门", "pos": [0, 2]}, "t": {"name": "异响", "pos": position}}
    found, problems = collect()
    (example,) = parse_offset_record(
        {"text": TEXT, "spo_list": [{**entry, "relation": "故障"}]}, problems
    )
    assert describe(example) == [("车门", "故障", "异响", Span(0, 2), None)]
    assert [problem.action for problem in found] == ["changed"]


def test_span_record_reads_entities_by_offset_and_types() -> None:
    record = {
        "id": 7,
        "text": TEXT,
        "entities": [
            {"id": 0, "start_offset": 0, "end_offset": 2, "label": "部件"},
            {"id": 1, "start_offset": 2, "end_offset": 4, "label": "现象"},
        ],
        "relations": [{"id": 0, "from_id": 0, "to_id": 1, "type": "故障"}],
    }
    (example,) = parse_span_record(record, Problems(Path("f")))
    assert describe(example) == [("车门", "故障", "异响", Span(0, 2), Span(2, 4))]
    assert example.triplets[0].subject_type == "部件"
    assert example.triplets[0].object_type == "现象"
    assert example.id == "7"


def test_span_record_names_an_unknown_entity() -> None:
    record: dict[str, Any] = {"text": TEXT, "entities": []}
    record["relations"] = [{"from_id": 3, "to_id": 4, "type": "r"}]
    with pytest.raises(DataError, match="entity 3"):
        list(parse_span_record(record, Problems(Path("f"))))


@pytest.mark.parametrize("name", ["triple_list", "triple_list_gold"])
def test_dump_record_reads_lists_and_objects(name: str) -> None:
    entries = [["甲", "位于", "乙"], {"subject": "丙", "relation": "位于", "object": "丁"}]
    (example,) = parse_dump_record({"text": "t", name: entries}, Problems(Path("f")))
    assert example.triplets == (Triplet("甲", "位于", "乙"), Triplet("丙", "位于", "丁"))


def test_relation_record_reads_types() -> None:
    entry = {
        "head": "甲",
        "relation": "位于",
        "tail": "乙",
        "head_type": "企业",
        "tail_type": "地点",
    }
    (example,) = parse_relation_record({"text": "t", "relation": [entry]}, Problems(Path("f")))
    (triplet,) = example.triplets
    assert (*triplet.key, triplet.subject_type, triplet.object_type) == (
        "甲",
        "位于",
        "乙",
        "企业",
        "地点",
    )


def test_relation_record_drops_an_entry_without_tail() -> None:
    found, problems = collect()
    record: dict[str, Any] = {"text": "t", "relation": [{"head": "甲", "relation": "r"}]}
    record["relation"].append({"head": "甲", "relation": "r", "tail": "乙"})
    (example,) = parse_relation_record(record, problems)
    assert [triplet.key for triplet in example.triplets] == [("甲", "r", "乙")]
    assert [(p.reason, p.action) for p in found] == [("missing_field", "dropped triplet")]


@pytest.mark.parametrize(("start", "end"), [(0, 5), (-1, 2), (2, 2), (True, 2), (0, "2")])
def test_build_span_names_the_range(start: object, end: object) -> None:
    with pytest.raises(RecordFault, match="of a text with 4"):
        build_span(start, end, TEXT)
