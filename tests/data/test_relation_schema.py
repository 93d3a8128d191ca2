from __future__ import annotations

import json
from pathlib import Path

import pytest

from tripletune.data.relation_schema import (
    Relation,
    RelationSchema,
    learn_schema,
    merge_schemas,
    save_schema,
)
from tripletune.data.schema_files import load_schema
from tripletune.errors import DataError, OutputError
from tripletune.schema import Example, Triplet

AUTHOR = Relation("作者", (("图书作品", "人物"),), count=2)
PLACE = Relation("位于", (("企业", "地点"), ("学校", "地点")), (("onDate", "Date"),))


def build(subject_type: str, relation: str, object_type: str) -> Triplet:
    return Triplet("a", relation, "b", subject_type=subject_type, object_type=object_type)


def test_schema_knows_its_types() -> None:
    schema = RelationSchema((AUTHOR, PLACE))
    assert schema.names == ("作者", "位于")
    assert schema.subject_types == ("企业", "图书作品", "学校")
    assert schema.object_types == ("人物", "地点")
    assert schema.find("位于") is PLACE
    assert schema.find("x") is None
    assert "作者" in schema
    assert "x" not in schema
    assert [*schema] == [AUTHOR, PLACE]
    assert len(schema) == 2


@pytest.mark.parametrize(
    ("types", "relation", "fit"),
    [
        (("图书作品", "人物"), "作者", "fits"),
        (("人物", "图书作品"), "作者", "reversed"),
        (("人物", "人物"), "作者", "wrong_types"),
        (("", ""), "作者", "fits"),
        (("", "人物"), "作者", "fits"),
        (("学校", "地点"), "位于", "fits"),
        (("图书作品", "人物"), "编剧", "unknown_relation"),
    ],
)
def test_schema_judges_a_triplet(types: tuple[str, str], relation: str, fit: str) -> None:
    assert RelationSchema((AUTHOR, PLACE)).judge(build(types[0], relation, types[1])) == fit


def test_relation_without_types_fits_any() -> None:
    assert RelationSchema((Relation("r"),)).judge(build("A", "r", "B")) == "fits"


def test_learned_schema_has_counts_types_and_slots() -> None:
    slotted = Triplet("a", "获奖", "b", object_slots=(("onDate", "2011"),))
    triplets = [build("图书作品", "作者", "人物")] * 3 + [
        build("人物", "作者", "图书作品"),
        slotted,
    ]
    schema = learn_schema([Example("x", tuple(triplets)), Example("y")])
    assert schema == RelationSchema(
        (
            Relation("作者", (("图书作品", "人物"), ("人物", "图书作品")), count=4),
            Relation("获奖", (), (("onDate", ""),), 1),
        )
    )
    strict = learn_schema([Example("x", tuple(triplets))], min_count=2, min_share=0.3)
    assert strict == RelationSchema((Relation("作者", (("图书作品", "人物"),), count=4),))


def test_merged_schema_allows_what_any_allows() -> None:
    other = RelationSchema((Relation("作者", (("作品", "人物"),), (("x", ""),), 3), Relation("r")))
    more = RelationSchema((Relation("作者", (), (("x", "Date"),)),))
    assert merge_schemas([RelationSchema((AUTHOR,)), other, more]) == RelationSchema(
        (
            Relation("作者", (("图书作品", "人物"), ("作品", "人物")), (("x", "Date"),), 5),
            Relation("r"),
        )
    )


def test_saved_schema_is_read_back(tmp_path: Path) -> None:
    schema = RelationSchema((AUTHOR, PLACE, Relation("r")))
    save_schema(schema, tmp_path / "schema.json")
    assert load_schema(tmp_path / "schema.json") == schema
    record = json.loads((tmp_path / "schema.json").read_text("utf-8"))
    assert record["relations"][2] == {"name": "r", "types": []}


def test_schema_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="none"):
        save_schema(RelationSchema((AUTHOR,)), tmp_path / "none" / "schema.json")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "'relations'"),
        ({"relations": [{}]}, "no object with a name"),
        ({"relations": [{"name": " "}]}, "' ' is empty"),
        ({"relations": [{"name": "r"}, {"name": "r"}]}, "'r' is given twice"),
        ({"relations": [{"name": "r", "types": [["a"]]}]}, "types"),
        ({"relations": [{"name": "r", "slots": {"a": 1}}]}, "slots"),
        ({"relations": [{"name": "r", "count": -1}]}, "count -1"),
    ],
)
def test_schema_record_that_is_wrong_is_named(record: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RelationSchema.from_record(record)
