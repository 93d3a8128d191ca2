from __future__ import annotations

import json
from pathlib import Path

import pytest

from tripletune.data.readers import detect_format, load_examples, read_examples
from tripletune.data.readers.problem import Problem
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet


def write(folder: Path, text: str, name: str = "data.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_of_one_sentence_become_one_example(tmp_path: Path) -> None:
    path = write(
        tmp_path, "甲\t乙\t收购\t甲收购乙\n\n乙\t甲\tunknown\t甲收购乙\n丙\t丁\tunknown\t无\n"
    )
    assert detect_format(path).name == "tsv"
    assert load_examples(path) == [
        Example("甲收购乙", (Triplet("甲", "收购", "乙"),)),
        Example("无"),
    ]


def test_header_names_the_columns_and_gives_types(tmp_path: Path) -> None:
    path = write(tmp_path, "人物1\t人物2\t关系\t文本\n甲\t乙\t夫妻\t甲与乙结婚\n")
    (example,) = load_examples(path)
    assert example == Example("甲与乙结婚", (Triplet("甲", "夫妻", "乙"),))
    assert example.triplets[0].subject_type == example.triplets[0].object_type == "人物"


def test_row_with_too_few_cells_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "甲\t乙\tr\tt\n甲\t乙\tr\n")
    with pytest.raises(DataError, match=r":2: .*has 3 cells; needed are 4"):
        load_examples(path)


def test_csv_cells_may_be_quoted_and_hold_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path, 'text,subject,relation,object\n"甲,\n乙",甲,位于,乙\n无,,,\n', "x.csv")
    assert detect_format(path).name == "csv"
    assert load_examples(path) == [
        Example("甲,\n乙", (Triplet("甲", "位于", "乙"),)),
        Example("无"),
    ]


def test_csv_types_come_from_their_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "句子,主体,关系,客体,主体类型\n甲在乙,甲,位于,乙,企业\n", "x.csv")
    (example,) = load_examples(path)
    assert example.triplets[0].subject_type == "企业"


def test_csv_without_a_needed_column_is_named_when_forced(tmp_path: Path) -> None:
    path = write(tmp_path, "text,subject,relation\na,b,c\n", "x.csv")
    with pytest.raises(DataError, match="lacks a column"):
        load_examples(path, format="csv")


def test_masked_names_are_put_back(tmp_path: Path) -> None:
    write(tmp_path, "unknown 0\n夫妻 1\n", "relation2id.txt")
    path = write(tmp_path, "1 张三$欧阳锋$##与###结婚，##很好\n0 甲$乙丙$#见##\n")
    assert detect_format(path).name == "masked"
    assert load_examples(path) == [
        Example("张三与欧阳锋结婚，张三很好", (Triplet("张三", "夫妻", "欧阳锋"),)),
        Example("甲见乙丙"),
    ]


def test_masked_names_of_one_length_are_not_guessed_at(tmp_path: Path) -> None:
    path = write(tmp_path, "1 张三$李四$##与##结婚\n1 张三$欧阳锋$####\n99 甲$乙丙$#见##\n")
    found: list[Problem] = []
    assert list(read_examples(path, on_problem=found.append)) == []
    assert [(p.reason, p.line) for p in found] == [
        ("label_numbers", None),
        ("ambiguous_mask", 1),
        ("ambiguous_mask", 2),
        ("unknown_label", 3),
    ]


def test_records_of_one_triplet_are_grouped(tmp_path: Path) -> None:
    line = '{"text": "t", "subject": "a", "relation": "r", "object": "%s"}\n'
    path = write(tmp_path, line % "b" + line % "c")
    expected = Example("t", (Triplet("a", "r", "b"), Triplet("a", "r", "c")))
    assert load_examples(path) == [expected]


@pytest.mark.parametrize(
    "rows",
    [
        "甲\t收购\t乙\t甲买下乙\n丙\t位于\t丁\t丙在丁",
        "甲\t收购\t乙\t甲收购乙\n丙\t收购\t丁\t丙收购丁",
    ],
)
def test_rows_without_a_header_may_have_the_relation_second(tmp_path: Path, rows: str) -> None:
    path = write(tmp_path, rows)
    found: list[Problem] = []
    examples = list(read_examples(path, on_problem=found.append))
    items = [row.split("\t") for row in rows.split("\n")]
    assert [list(example.triplets[0].key) for example in examples] == [row[:3] for row in items]
    assert [(p.reason, p.action) for p in found] == [("column_order", "changed")]


@pytest.mark.parametrize(
    "names", [("sentence", "head", "relation", "tail"), ("文本", "主体", "关系", "客体")]
)
def test_records_may_have_the_names_of_columns(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "x.jsonl"
    record = dict(zip(names, ("甲收购乙", "甲", "收购", "乙"), strict=True))
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    (example,) = read_examples(path)
    assert (example.text, example.triplets[0].key) == ("甲收购乙", ("甲", "收购", "乙"))


def test_table_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("文本,主体,关系,客体\n甲收购乙,甲,收购,乙\n".encode("gb18030"))
    with pytest.raises(DataError, match=r"reads as GB18030 \('文本,主体,关系,客体'\): iconv"):
        list(read_examples(path))


def test_first_row_of_unknown_column_names_is_no_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "from\tto\tkind\tphrase\n甲\t乙\t收购\t甲收购乙")
    found: list[Problem] = []
    examples = list(read_examples(path, on_problem=found.append))
    assert [example.text for example in examples] == ["甲收购乙"]
    assert [(p.line, p.reason) for p in found] == [(1, "unknown_header")]
    assert "['from', 'to', 'kind', 'phrase']" in found[0].message


def test_column_names_with_underscores_and_numbers_are_known(tmp_path: Path) -> None:
    path = write(tmp_path, "entity_1\tentity_2\tlabel\tsent\n甲\t乙\t收购\t甲收购乙")
    (example,) = load_examples(path)
    assert example.triplets[0].to_record() == {"subject": "甲", "relation": "收购", "object": "乙"}
