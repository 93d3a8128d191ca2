from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.data.schema_files import is_schema_file, load_schema, validate_schema
from tripletune.errors import DataError

TYPED = RelationSchema((Relation("作者", (("书", "人"),)),))
FORMS = [
    ('{"predicate": "作者", "subject_type": "书", "object_type": "人"}\n', TYPED),
    (
        '[{"predicate": "作者", "subject_type": "书",\n'
        ' "object_type": {"@value": "人", "on": "D"}}]',
        RelationSchema((Relation("作者", (("书", "人"),), (("on", "D"),)),)),
    ),
    ('["书_作者_人"]\n["作者"]\n{}', TYPED),
    ('["作者", "a_b"]', RelationSchema((Relation("作者"), Relation("a_b")))),
    ("unknown 0\n作者\t1\n", RelationSchema((Relation("作者"),))),
    ('{"relations": [{"name": "作者", "types": [["书", "人"]]}]}', TYPED),
]


@pytest.mark.parametrize(("text", "expected"), FORMS)
def test_schema_is_read_in_every_form(tmp_path: Path, text: str, expected: RelationSchema) -> None:
    path = tmp_path / "schema"
    path.write_text(text, encoding="utf-8")
    assert load_schema(path) == expected
    assert is_schema_file(path)


def test_data_is_no_schema(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text('{"text": "a", "triplets": []}\n', encoding="utf-8")
    assert not is_schema_file(path)
    path.write_text("甲\t乙\tr\t甲乙\n", encoding="utf-8")
    assert not is_schema_file(path)
    assert not is_schema_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"predicate": 3}', "has no predicate"),
        ('{"predicate": "a"}\n{"predicate": ', r":2: broken JSON"),
        ('{"predicate": "a", "subject_type": 3}', "a type is no string"),
        ("[5]", "5 is neither"),
        ("[]", "names no relation"),
        ("\x1c", "names no relation"),
    ],
)
def test_unusable_schema_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "schema"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        load_schema(path)


def test_schema_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "schema"
    path.write_bytes("作者 1".encode("gb18030"))
    with pytest.raises(DataError, match="byte 0 is not UTF-8"):
        load_schema(path)


def test_validation_finds_what_is_likely_wrong() -> None:
    schema = RelationSchema(
        (
            Relation("总部地点", (("A", "B"), ("B", "A"))),
            Relation("总部 地点", (("A", "B"),)),
            Relation("收购", (("A", "A"),)),
            Relation("被收购 "),
        )
    )
    assert validate_schema(schema) == (
        "relations '总部地点' and '总部 地点' look alike",
        "relation '总部地点' goes both ways between 'A' and 'B'",
        "relation '被收购 ' begins or ends in white space",
        "relation '被收购 ' has no types, others have",
    )
    assert validate_schema(TYPED) == ()
