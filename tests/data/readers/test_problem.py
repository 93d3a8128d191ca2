from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.problem import Problem, Problems, shorten, shorten_text
from tripletune.errors import DataError


def test_problems_raise_with_path_and_line_unless_collected() -> None:
    problems = Problems(Path("a.jsonl"))
    problems.line = 3
    with pytest.raises(DataError, match=r"a\.jsonl:3: wrong"):
        problems.drop_record("reason", "wrong")
    with pytest.raises(DataError, match=r"a\.jsonl:3: wrong"):
        problems.drop_triplet("reason", "wrong")
    problems.change("reason", "harmless")


def test_problems_are_passed_on_when_collected() -> None:
    found: list[Problem] = []
    problems = Problems(Path("a"), found.append)
    problems.line = 3
    problems.drop_record("x", "m", value=[1])
    problems.change("y", "n", value="text")
    assert [problem.to_record() for problem in found] == [
        {
            "path": "a",
            "line": 3,
            "reason": "x",
            "action": "dropped record",
            "message": "m",
            "value": "[1]",
        },
        {
            "path": "a",
            "line": 3,
            "reason": "y",
            "action": "changed",
            "message": "n",
            "value": "text",
        },
    ]


def test_shorten_cuts_and_escapes() -> None:
    assert shorten("abcdef", limit=5) == "'abc…"
    assert shorten_text("\ud800a") == "\\ud800a"
