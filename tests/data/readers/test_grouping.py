from __future__ import annotations

from pathlib import Path

from tripletune.data.readers.grouping import group_by_text
from tripletune.data.readers.problem import Problems
from tripletune.schema import Example, Triplet

A, B = Triplet("a", "r", "b"), Triplet("c", "r", "d")


def test_grouping_joins_triplets_in_the_order_texts_first_come() -> None:
    rows = [Example("x", (A,), "1"), Example("y"), Example("x", (B, A))]
    grouped = list(group_by_text(iter(rows), Problems(Path("f"))))
    assert grouped == [Example("x", (A, B), "1"), Example("y")]


def test_grouping_gives_the_oldest_text_out_when_the_window_is_full() -> None:
    rows = [Example("x", (A,)), Example("y"), Example("z"), Example("x", (B,))]
    grouped = list(group_by_text(iter(rows), Problems(Path("f")), window=2))
    assert [(e.text, e.triplets) for e in grouped] == [
        ("x", (A,)),
        ("y", ()),
        ("z", ()),
        ("x", (B,)),
    ]
