from __future__ import annotations

import json

import numpy as np
import pytest

from tripletune.errors import DataError
from tripletune.evaluation.table import NameIndex, build_table, read_tables
from tripletune.schema import Example, Extraction, Triplet

RECORDS = [
    {
        "id": 7,
        "text": "苹果公司位于库比蒂诺。",
        "triplets": [
            {"subject": "苹果公司", "relation": "总部地点", "object": "库比蒂诺"},
            {
                "subject": "苹果公司",
                "relation": "总部地点",
                "object": "美国",
                "confidence": 0.25,
                "object_slots": {"inArea": "加州"},
                "subject_span": [0, 4],
            },
        ],
    },
    {"text": "没有事实。", "triplets": [], "problems": ["'(甲, 乙)' has 2 items, not 3"]},
    {"text": "甲在乙。", "triplets": [{"subject": "甲", "relation": "位于", "object": "苹果公司"}]},
]


def write_lines(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def check_table(table, names):
    assert list(names) == ["苹果公司", "总部地点", "库比蒂诺", "美国", "甲", "位于"]
    assert table.texts == ["苹果公司位于库比蒂诺。", "没有事实。", "甲在乙。"]
    assert table.ids == ["7", None, None]
    assert table.rows.tolist() == [0, 0, 2]
    assert table.subjects.tolist() == [0, 0, 4]
    assert table.relations.tolist() == [1, 1, 5]
    assert table.objects.tolist() == [2, 3, 0]
    assert table.slots == {1: (("inArea", "加州"),)}
    np.testing.assert_array_equal(table.confidences, [np.nan, 0.25, np.nan])
    assert table.problems == {1: ("'(甲, 乙)' has 2 items, not 3",)}


def test_name_index_numbers_names_once():
    names = NameIndex()
    assert [names[name] for name in ("甲", "乙", "甲")] == [0, 1, 0]


@pytest.mark.parametrize("name", ["", " \u3000", 3, None])
def test_name_index_rejects_what_is_no_name(name):
    with pytest.raises(DataError, match="is not a string with something in it"):
        NameIndex()[name]


def test_read_tables_reads_every_column(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [json.dumps(record) for record in RECORDS])
    names = NameIndex()
    check_table(*read_tables([path], names), names)


def test_read_tables_passes_over_blank_lines_and_a_byte_order_mark(tmp_path):
    lines = [json.dumps(record, ensure_ascii=False) for record in RECORDS]
    path = tmp_path / "x.jsonl"
    path.write_bytes(("\ufeff" + "\r\n\r\n".join(lines)).encode())
    names = NameIndex()
    check_table(*read_tables([path], names), names)


def test_build_table_makes_the_same_table_as_reading(tmp_path):
    examples = [Example.from_record(record) for record in RECORDS]
    extraction = Extraction(examples[1].text, problems=tuple(RECORDS[1]["problems"]))
    names = NameIndex()
    check_table(build_table([examples[0], extraction, examples[2]], names), names)


def test_build_table_of_nothing_has_no_rows():
    table = build_table([], NameIndex())
    assert (table.texts, table.rows.tolist(), table.confidences) == ([], [], None)


def test_build_table_shares_names_between_tables():
    names = NameIndex()
    build_table([Example("甲在乙", (Triplet("甲", "位于", "乙"),))], names)
    second = build_table([Example("乙在甲", (Triplet("乙", "位于", "甲"),))], names)
    assert (second.subjects.tolist(), second.objects.tolist()) == ([2], [0])


GOOD = '{"text": "甲在乙", "triplets": []}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "甲"', r"x\.jsonl:2: .*is not a JSON object"),
        ('["甲"]', r"x\.jsonl:2: record: \['甲'\] is not a JSON object"),
        ('{"text": "甲"}', r"x\.jsonl:2: record: field 'triplets' is missing"),
        ('{"text": "", "triplets": []}', r"x\.jsonl:2: text: '' is empty"),
        ('{"text": 5, "triplets": []}', r"x\.jsonl:2: text: 5 is not a string"),
        ('{"text": "甲", "triplets": "乙"}', r"x\.jsonl:2: triplets: '乙' is not a list"),
        (
            '{"text": "甲", "triplets": [{"subject": "甲", "relation": "在"}]}',
            r"x\.jsonl:2: triplet: field 'object' is missing",
        ),
        (
            '{"text": "甲", "triplets": [{"subject": "甲", "relation": "在", "object": " "}]}',
            r"x\.jsonl:2: triplet object: ' ' is empty",
        ),
        (
            '{"text": "甲", "triplets": [{"subject": ["甲"], "relation": "在", "object": "乙"}]}',
            r"x\.jsonl:2: triplet subject: \['甲'\] is not a string",
        ),
        (
            '{"text": "甲", "triplets": [{"subject": "甲", "relation": "在", "object": "乙",'
            ' "confidence": 1.5}]}',
            r"x\.jsonl:2: triplet confidence: 1\.5 is not between 0 and 1",
        ),
        (
            '{"text": "甲", "triplets": [{"subject": "甲", "relation": "在", "object": "乙",'
            ' "object_slots": ["a"]}]}',
            r"x\.jsonl:2: triplet object_slots: \['a'\] is not an object",
        ),
    ],
)
def test_read_tables_names_file_line_and_fault(tmp_path, line, message):
    path = write_lines(tmp_path / "x.jsonl", [GOOD, line])
    with pytest.raises(DataError, match=message) as caught:
        read_tables([path], NameIndex())
    assert (caught.value.path, caught.value.line) == (path, 2)


def test_read_tables_names_a_byte_that_is_not_utf8(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + '{"text": "甲"'.encode("gb18030"))
    with pytest.raises(DataError, match=r"byte 0xbc is not UTF-8 text; save the file as UTF-8"):
        read_tables([path], NameIndex())


def test_read_tables_names_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: cannot be read: No such file"):
        read_tables([tmp_path / "nowhere.jsonl"], NameIndex())
