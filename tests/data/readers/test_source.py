from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.problem import Problem, Problems
from tripletune.data.readers.source import (
    check_file,
    is_line_json,
    iter_document,
    iter_json,
    iter_lines,
    read_head,
)
from tripletune.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.jsonl"


def test_check_file_names_a_near_name(path: Path) -> None:
    path.write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"did you mean .*data\.jsonl"):
        check_file(path.with_name("dta.jsonl"))


@pytest.mark.parametrize("raw", [b"", b"\n \r\n", b"\xef\xbb\xbf"])
def test_check_file_refuses_an_empty_file(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is empty"):
        check_file(path)


def test_check_file_lists_what_a_folder_holds(path: Path) -> None:
    path.write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"is a folder; .*: data\.jsonl"):
        check_file(path.parent)


def test_check_file_names_utf16(path: Path) -> None:
    path.write_text("abc", encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        check_file(path)


def test_lines_accept_byte_order_mark_crlf_and_blank_lines(path: Path) -> None:
    path.write_bytes("\ufeff一\r\n\r\n二\u2028三\n".encode())
    assert list(iter_lines(path, Problems(path))) == [(1, "一"), (3, "二\u2028三")]


def test_lines_name_line_and_byte_that_are_not_utf8(path: Path) -> None:
    path.write_bytes(b"a\nbc" + "汉字".encode("gb18030") + b"\nd\n")
    with pytest.raises(DataError, match=r"data\.jsonl:2: byte 2 .* 0xba.*GB18030 \('bc汉字'\)"):
        list(iter_lines(path, Problems(path)))
    found: list[Problem] = []
    assert list(iter_lines(path, Problems(path, found.append))) == [(1, "a"), (3, "d")]
    assert [(p.reason, p.line) for p in found] == [("not_utf8", 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\n{"a": 2}\n', True),
        ('{"a": \n{"a": 2}\n', True),
        ('{"a": 1,}\nx', True),
        ('{\n"a": 1}\n', False),
        ('[{"a": 1}]', False),
        ("[]\n[1]\n{}", True),
        ("plain\n", True),
    ],
)
def test_line_json_is_told_from_a_document(path: Path, text: str, expected: bool) -> None:
    path.write_text(text, encoding="utf-8")
    assert is_line_json(path) is expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": }', "broken JSON at character 7"),
        ("[" * 100_000, "broken JSON|cannot be read"),
        ("9" * 5000, "cannot be read"),
        ('{"a": {"b": 1, "b": 2}}', "key 'b' stands twice"),
        (r'"\udc00"', "half a surrogate pair"),
    ],
)
def test_json_lines_name_what_is_broken(path: Path, line: str, message: str) -> None:
    path.write_text('{"a": 1}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=f":2: .*(?:{message})"):
        list(iter_json(path, Problems(path)))


def test_document_goes_on_after_an_object_that_names_a_key_twice(path: Path) -> None:
    path.write_text('[{"a": 1, "a": 2},\n{"a": 3}]', encoding="utf-8")
    found: list[Problem] = []
    values = list(iter_document(path, Problems(path, found.append)))
    assert values == [(2, {"a": 3})]
    assert [(p.reason, p.line) for p in found] == [("broken_json", 1)]


def test_document_and_lines_give_the_same_values(path: Path) -> None:
    path.write_text('[{"a": 1},\n{"a": 2}]', encoding="utf-8")
    expected = [(1, {"a": 1}), (2, {"a": 2})]
    assert list(iter_document(path, Problems(path))) == expected
    assert list(iter_json(path, Problems(path))) == expected
    path.write_text('{"a": 1}\n{"a": 2}', encoding="utf-8")
    assert list(iter_json(path, Problems(path))) == expected


def test_head_leaves_out_what_cannot_be_read(path: Path) -> None:
    path.write_bytes(b'{"a": 1}\n{broken\n{"a": 3}\n')
    head = read_head(path)
    assert head.records == ({"a": 1}, {"a": 3})
    assert head.lines == ('{"a": 1}', "{broken", '{"a": 3}')
    assert head.magic == b'{"a"'
