from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers import detect_format, load_examples, read_rows
from tripletune.data.readers.columnar import clean_row
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet

datasets = pytest.importorskip("datasets")

ROWS = [
    {"text": "甲位于乙", "triplets": [{"subject": "甲", "relation": "位于", "object": "乙"}]},
    {"text": "无事", "triplets": []},
]
EXAMPLES = [Example("甲位于乙", (Triplet("甲", "位于", "乙"),)), Example("无事")]


def test_saved_data_set_is_read(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "d")
    assert detect_format(tmp_path / "d").name == "dataset"
    assert load_examples(tmp_path / "d") == EXAMPLES


def test_saved_splits_are_named(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"dev": data, "train": data}).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match="splits dev, train"):
        load_examples(tmp_path / "d")


def test_data_set_in_memory_is_read() -> None:
    assert list(read_rows(datasets.Dataset.from_list(ROWS))) == EXAMPLES


def test_parquet_of_another_format_is_read(tmp_path: Path) -> None:
    rows = [{"instruction": "抽取", "input": "甲位于乙", "output": "(甲, 位于, 乙)"}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "x.parquet")
    assert load_examples(tmp_path / "x.parquet") == EXAMPLES[:1]


def test_parquet_of_plain_columns_is_grouped_by_text(tmp_path: Path) -> None:
    rows = [
        {"text": "t", "subject": "a", "relation": "r", "object": "b"},
        {"text": "t", "subject": "a", "relation": "r", "object": "c"},
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "x")
    expected = Example("t", (Triplet("a", "r", "b"), Triplet("a", "r", "c")))
    assert load_examples(tmp_path / "x") == [expected]


def test_values_that_json_does_not_have_become_text(tmp_path: Path) -> None:
    import datetime
    import decimal

    path = tmp_path / "x.parquet"
    rows = [
        {"text": "t", "subject": b"a", "relation": "r", "object": datetime.date(1949, 10, 1)},
        {"text": "t", "subject": b"\xff", "relation": "r", "object": datetime.date(2000, 1, 1)},
    ]
    datasets.Dataset.from_list(rows).to_parquet(path)
    assert [triplet.key for triplet in load_examples(path)[0].triplets] == [
        ("a", "r", "1949-10-01"),
        (r"b'\xff'", "r", "2000-01-01"),
    ]
    assert clean_row({"object": decimal.Decimal("1.50")}) == {"object": "1.50"}


def test_date_that_python_does_not_have_is_named(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    table = pyarrow.table(
        {"text": ["t"], "object": pyarrow.array([2**62], pyarrow.timestamp("us"))}
    )
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read as Parquet: .*out of range"):
        load_examples(path)


def test_arrow_file_whose_offsets_reach_outside_is_named(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "d")
    (file,) = (tmp_path / "d").glob("*.arrow")
    raw = file.read_bytes()
    # The offsets of the two texts: 0, 4 and 6 characters of three bytes each.
    offsets = b"".join(number.to_bytes(4, "little") for number in (0, 12, 18))
    assert raw.count(offsets) == 1
    damaged = offsets[:8] + (2**31 - 1).to_bytes(4, "little")
    file.write_bytes(raw.replace(offsets, damaged))
    with pytest.raises(DataError, match=r"cannot be read as Arrow: .*[Oo]ffset"):
        load_examples(tmp_path / "d")


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1" + b"\x00" * 40 + b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_examples(path)


def test_damaged_arrow_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data.arrow").write_bytes(b"no arrow at all")
    with pytest.raises(DataError, match="cannot be read as Arrow"):
        load_examples(tmp_path)


def test_broken_list_of_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="no list of data files"):
        load_examples(tmp_path)


def test_rows_of_no_format_are_named() -> None:
    with pytest.raises(DataError, match="'colour'"):
        list(read_rows([{"colour": "red"}]))
    with pytest.raises(DataError, match="no rows"):
        list(read_rows([]))


def test_clean_row_drops_nulls_and_rebuilds_slots() -> None:
    row = {"a": None, "t": [{"b": None, "object_slots": [{"name": "x", "value": "y"}]}]}
    assert clean_row(row) == {"t": [{"object_slots": {"x": "y"}}]}
