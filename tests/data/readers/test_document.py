from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tripletune.data.readers import document
from tripletune.data.readers.document import Document, has_lone_surrogate
from tripletune.data.readers.problem import Problem, Problems


def read(raw: bytes) -> tuple[list[tuple[int, object]], list[tuple[str, int | None]]]:
    found: list[Problem] = []
    values = list(Document(io.BytesIO(raw), Problems(Path("f"), found.append)).iter_values())
    return values, [(problem.reason, problem.line) for problem in found]


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        (b'[{"a": 1},\n {"a": 2}]', [(1, {"a": 1}), (2, {"a": 2})]),
        (b"\xef\xbb\xbf\r\n[\r\n1,\r\n2]\r\n", [(3, 1), (4, 2)]),
        (b'{\n"a": 1\n}\n{\n"a": 2\n}\n', [(1, {"a": 1}), (4, {"a": 2})]),
        (b"[]", []),
    ],
)
def test_document_yields_values_with_their_lines(
    raw: bytes, values: list[tuple[int, object]]
) -> None:
    assert read(raw) == (values, [])


def test_document_reads_values_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_FIRST_CHUNK_BYTES", 7)
    expected = [{"text": "汉字" * 40, "n": 123456789}, 12345678901, "𝄞"]
    raw = json.dumps(expected, ensure_ascii=False).encode()
    assert [value for _, value in read(raw)[0]] == expected


@pytest.mark.parametrize(
    ("raw", "values", "problems"),
    [
        (b'[1,\n2,\n{"a" 3}]', [1, 2], [("broken_json", 3)]),
        (b"[1,\n2", [1, 2], [("broken_json", 2)]),
        (b"[1]\n[2]", [1], [("broken_json", 2)]),
        (b'[1,\n"\xb5\xc4"]', [1], [("not_utf8", 2)]),
        (b'["\\ud800", 2]', [2], [("lone_surrogate", 1)]),
        (b"[" * 100_000, [], [("broken_json", 1)]),
    ],
)
def test_document_names_what_it_cannot_read(
    raw: bytes, values: list[object], problems: list[tuple[str, int]]
) -> None:
    found = read(raw)
    assert ([value for _, value in found[0]], found[1]) == (values, problems)


@pytest.mark.parametrize(
    ("source", "expected"),
    [(r'"\ud834\udd1e"', False), (r'"\ud834"', True), (r'"\\ud834"', False), ('"x"', False)],
)
def test_lone_surrogate_is_told_from_a_pair(source: str, expected: bool) -> None:
    assert has_lone_surrogate(source, json.loads(source)) is expected
