from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tripletune.data.readers.formats import build_json_format, parse_values
from tripletune.data.readers.problem import Problem, Problems, RecordFault
from tripletune.data.readers.source import Head
from tripletune.schema import Example


def parse(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    if record["t"] == "bad":
        raise RecordFault("bad_word", "bad")
    yield Example(record["t"])


KNOWN = build_json_format("words", "{t}", lambda record: "t" in record, parse, fields=("t",))


def test_json_format_scores_the_records_that_match() -> None:
    assert KNOWN.score(Head(Path("f"), (), ({"t": 1}, {"u": 1}, 3, {"t": 2}))) == 2


def test_json_format_reports_what_is_no_object_and_what_cannot_be_parsed() -> None:
    found: list[Problem] = []
    assert KNOWN.form is not None
    values = [(1, {"t": "a"}), (2, 7), (3, {"t": "bad"}), (4, {"t": "b"})]
    examples = parse_values(KNOWN.form, "needs {t}", values, Problems(Path("f"), found.append))
    assert [example.text for example in examples] == ["a", "b"]
    assert [(p.line, p.reason, p.message) for p in found] == [
        (2, "not_an_object", "7 is not a JSON object; needs {t}"),
        (3, "bad_word", "bad; needs {t}"),
    ]
