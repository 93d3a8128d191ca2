from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tripletune.data.readers.grouping import group_by_text
from tripletune.data.readers.problem import Problem, Problems
from tripletune.schema import Example, Triplet


def number_lines(rows: list[Example], problems: Problems) -> Iterator[Example]:
    for problems.line, row in enumerate(rows, 1):
        yield row


A, B = Triplet("a", "r", "b"), Triplet("c", "r", "d")


def test_grouping_joins_triplets_in_the_order_texts_first_come() -> None:
    rows = [Example("x", (A,), "1"), Example("y"), Example("x", (B, A))]
    grouped = list(group_by_text(iter(rows), Problems(Path("f"))))
    assert grouped == [Example("x", (A, B), "1"), Example("y")]


def test_grouping_gives_the_oldest_text_out_when_the_window_is_full() -> None:
    rows = [Example("x", (A,)), Example("y"), Example("z"), Example("x", (B,))]
    found: list[Problem] = []
    problems = Problems(Path("f"), found.append)
    lines, grouped = [], []
    for example in group_by_text(number_lines(rows, problems), problems, window=2):
        grouped.append((example.text, example.triplets))
        lines.append(problems.line)
    assert grouped == [("x", (A,)), ("y", ()), ("z", ()), ("x", (B,))]
    assert lines == [1, 2, 3, 4]
    assert [(p.reason, p.line) for p in found] == [("text_again", 4)]


def test_examples_and_repeats_have_the_lines_they_stand_on() -> None:
    rows = [Example("x", (A,)), Example("y", (B,)), Example("x", (A, B))]
    found: list[Problem] = []
    problems = Problems(Path("f"), found.append)
    lines = [problems.line for _ in group_by_text(number_lines(rows, problems), problems)]
    assert lines == [1, 2]
    assert [(p.reason, p.line) for p in found] == [("repeated_triplet", 3)]
