from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tripletune.errors import DataError
from tripletune.extraction.job_input import InputRecord, count_records, iter_records


def test_iter_records_reads_csv_with_quoted_line_feeds(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('id,文本\n1,"甲,\n乙"\n2,丙\n', encoding="utf-8-sig")
    assert list(iter_records(path)) == [InputRecord("甲,\n乙", "1"), InputRecord("丙", "2")]


def test_iter_records_reports_csv_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("text\n甲\n".encode() + b"\xff\n")
    assert list(iter_records(path)) == [
        InputRecord("甲"),
        InputRecord("", None, f"{path}:3: the text is not UTF-8"),
    ]


def test_iter_records_reads_a_named_column_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"body": ["甲", None], "id": [1, 2]}), path)
    assert list(iter_records(path, text_field="body")) == [
        InputRecord("甲", "1"),
        InputRecord("", "2", f"{path}: row 2: body None is not a string"),
    ]


def test_iter_records_keeps_blank_lines_of_txt(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes("\ufeff甲\r\n\n乙".encode())
    assert list(iter_records(path)) == [InputRecord("甲"), InputRecord(""), InputRecord("乙")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"text": "\xe7\x94\xb2"}\n', [InputRecord("甲")]),
        ("甲\n乙\n".encode(), [InputRecord("甲"), InputRecord("乙")]),
    ],
)
def test_iter_records_recognises_standard_input(
    monkeypatch: pytest.MonkeyPatch, content: bytes, expected: list[InputRecord]
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    assert list(iter_records(None)) == expected


def test_iter_records_refuses_a_table_without_text(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"columns \['a', 'b'\], none of which is 'text'"):
        list(iter_records(path))


def test_iter_records_refuses_an_unknown_ending(tmp_path: Path) -> None:
    path = tmp_path / "in.doc"
    path.write_text("甲", encoding="utf-8")
    with pytest.raises(DataError, match=r"the ending '\.doc' is none of \.jsonl"):
        iter_records(path)


@pytest.mark.parametrize(("content", "count"), [("a\nb\n", 2), ("a\nb", 2), ("", 0)])
def test_count_records_counts_lines(tmp_path: Path, content: str, count: int) -> None:
    path = tmp_path / "in.txt"
    path.write_text(content, encoding="utf-8")
    assert count_records(path) == count


def test_count_records_does_not_guess_at_csv(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\n甲\n", encoding="utf-8")
    assert count_records(path) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", "7"),
        ("null", None),
        ('"甲"', "甲"),
        ('{"章": [1, null]}', '{"章": [1, null]}'),
        ("true", "true"),
    ],
)
def test_id_is_text_as_it_stands_in_json(value: str, expected: str | None, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"id": {value}, "text": "甲"}}\n', encoding="utf-8")
    assert [record.id for record in iter_records(path)] == [expected]
