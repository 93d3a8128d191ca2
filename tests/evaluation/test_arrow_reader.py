from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripletune.evaluation import table
from tripletune.evaluation.arrow_reader import read_columns
from tripletune.evaluation.table import NameIndex, build_table, read_tables
from tripletune.schema import Example, Triplet

GOOD = {
    "id": "a",
    "text": "甲在乙，\n丙在“丁”。",
    "triplets": [
        {"subject": "甲", "relation": "在", "object": "2020-01-01", "subject_type": "人"},
        {
            "subject": "丙",
            "relation": "在",
            "object": "甲",
            "confidence": 0.5,
            "object_span": [0, 1],
        },
    ],
    "problems": ["'(甲' ?"],
}


def encode(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def test_read_columns_reads_every_column():
    columns = read_columns(encode({"text": "无", "triplets": []}, GOOD))
    assert columns.texts == ["无", "甲在乙，\n丙在“丁”。"]
    assert columns.ids == [None, "a"]
    assert columns.ends.tolist() == [0, 2]
    items = [[columns.names[int(n)].as_py() for n in item] for item in columns.items]
    assert items == [["甲", "丙"], ["在", "在"], ["2020-01-01", "甲"]]
    np.testing.assert_array_equal(columns.confidences, [np.nan, 0.5])
    assert columns.problems == {1: ("'(甲' ?",)}


def test_read_columns_reads_numbers_as_ids():
    columns = read_columns(encode({"id": 7, "text": "无", "triplets": []}))
    assert (columns.ids, len(columns.names), columns.confidences) == (["7"], 0, None)


def test_read_columns_accepts_a_last_line_without_line_feed():
    assert read_columns(encode(GOOD).rstrip()).ends.tolist() == [2]


UNUSUAL = {
    "blank line": encode(GOOD) + b"\n" + encode(GOOD),
    "two objects in a line": encode(GOOD).rstrip() + b" " + encode(GOOD),
    "an object over two lines": b'{"text": "a",\n "triplets": []}\n',
    "damaged": encode(GOOD) + b'{"text": "a", "triplets": [\n',
    "not an object": b"[]\n",
    "not UTF-8": b'{"text": "a\xff", "triplets": []}\n',
    "half a surrogate pair": rb'{"text": "a\ud83d", "triplets": []}' + b"\n",
    "no text": encode({"triplets": []}),
    "no triplets": encode({"text": "a"}),
    "blank text": encode({"text": " ", "triplets": []}),
    "text of another type": encode({"text": 5, "triplets": []}),
    "triplets of another type": encode({"text": "a", "triplets": {}}),
    "no triplet": encode({"text": "a", "triplets": [None]}),
    "id of another type": encode({"id": 1.5, "text": "a", "triplets": []}),
    "problems of another type": encode({"text": "a", "triplets": [], "problems": "x"}),
}
ITEMS = {
    "no object": {"object": None},
    "blank object": {"object": "\u3000"},
    "object of another type": {"object": 3},
    "confidence of another type": {"confidence": "0.5"},
    "confidence beyond 1": {"confidence": 1.5},
    "object slots": {"object_slots": {"inArea": "中国"}},
}
UNUSUAL |= {
    name: encode({"text": "a", "triplets": [{**GOOD["triplets"][0], **change}]})
    for name, change in ITEMS.items()
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_read_columns_hands_back_what_is_unusual(name):
    assert read_columns(UNUSUAL[name]) is None


@pytest.mark.parametrize("character", [c for c in map(chr, range(0x11000)) if c.isspace()])
def test_read_columns_hands_back_every_kind_of_blank_name(character):
    triplet = {"subject": "甲", "relation": character, "object": "乙"}
    assert read_columns(encode({"text": "甲在乙", "triplets": [triplet]})) is None


def check_same(first, second):
    for name in ("texts", "ids", "slots", "problems"):
        assert getattr(first, name) == getattr(second, name), name
    for name in ("rows", "subjects", "relations", "objects"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    if first.confidences is None or second.confidences is None:
        assert first.confidences is second.confidences
    else:
        np.testing.assert_array_equal(first.confidences, second.confidences)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).filter(str.strip)
TRIPLETS = st.builds(
    Triplet,
    WORDS,
    WORDS,
    WORDS,
    object_slots=st.sampled_from([(), (), (("inArea", "中国"),)]),
    confidence=st.none() | st.floats(0, 1),
)
EXAMPLES = st.builds(
    Example,
    WORDS,
    st.lists(TRIPLETS, max_size=3).map(tuple),
    st.none() | st.sampled_from(["1", "b"]),
)


@settings(deadline=None)
@given(st.lists(EXAMPLES, max_size=12))
def test_reading_by_columns_gives_the_table_of_the_records(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("columns") / "x.jsonl"
    path.write_text("".join(item.to_json() + "\n" for item in examples), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_LARGE_FILE_BYTES", 0)
        patch.setattr(table, "_BLOCK_BYTES", 64)
        names = NameIndex()
        (by_columns,) = read_tables([path], names)
    # Names are numbered in another order, so both are compared under the same index.
    check_same(by_columns, build_table(examples, names))


def test_reading_by_columns_imports_neither_pandas_nor_torch(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(encode(*[GOOD] * 5))
    code = (
        "import sys\n"
        "from tripletune.evaluation import table\n"
        "table._LARGE_FILE_BYTES = 0\n"
        f"tables = table.read_tables([{str(path)!r}] * 2, table.NameIndex())\n"
        "assert len(tables[1].rows) == 10 and 'pyarrow' in sys.modules\n"
        "print([name for name in ('pandas', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_by_columns_names_the_line_of_a_later_block(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_LARGE_FILE_BYTES", 0)
    monkeypatch.setattr(table, "_BLOCK_BYTES", 64)
    path = tmp_path / "x.jsonl"
    path.write_bytes(encode(*[GOOD] * 5) + b'{"text": "a"}\n')
    with pytest.raises(table.DataError, match=r"x\.jsonl:6: record: field 'triplets' is missing"):
        read_tables([path], NameIndex())
