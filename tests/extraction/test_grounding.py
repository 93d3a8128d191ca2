from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.extraction.grounding import choose_pair, find_spans, ground_pair
from tripletune.schema import Span


@pytest.mark.parametrize(
    ("text", "item", "expected"),
    [
        ("甲乙甲", "甲", [Span(0, 1), Span(2, 3)]),
        ("aaa", "aa", [Span(0, 2), Span(1, 3)]),
        ("重５㎏。", "5kg", [Span(1, 3)]),
        ("重５㎏。", "5k", []),
        ("史蒂夫 乔布斯", "史蒂夫乔布斯", [Span(0, 7)]),
        ("史蒂夫乔布斯", "史蒂夫 乔布斯", [Span(0, 6)]),
        ("cafe\u0301", "caf\u00e9", [Span(0, 5)]),
        ("甲", "丁", []),
        ("甲", " ", []),
    ],
)
def test_find_spans_finds_exact_then_loose_occurrences(
    text: str, item: str, expected: list[Span]
) -> None:
    assert find_spans(text, item) == expected


def test_find_spans_prefers_exact_occurrences() -> None:
    assert find_spans("Ａ和A", "A") == [Span(2, 3)]


def test_ground_pair_takes_the_closest_occurrences() -> None:
    text = "乙说甲在丙。甲在乙。"
    assert ground_pair(text, "甲", "丙") == (Span(2, 3), Span(4, 5))
    assert ground_pair(text, "甲", "在") == (Span(2, 3), Span(3, 4))


def test_ground_pair_prefers_the_subject_before_the_object() -> None:
    assert ground_pair("乙说甲在丙。甲在乙。", "甲", "乙") == (Span(6, 7), Span(8, 9))


def test_ground_pair_avoids_overlapping_occurrences() -> None:
    assert ground_pair("北京大学位于北京", "北京大学", "北京") == (Span(0, 4), Span(6, 8))


def test_ground_pair_overlaps_when_nothing_else_is_there() -> None:
    assert ground_pair("北京大学", "北京大学", "北京") == (Span(0, 4), Span(0, 2))


def test_ground_pair_has_none_for_an_item_that_is_not_there() -> None:
    assert ground_pair("甲在乙", "丁", "乙") == (None, Span(2, 3))


def gap(one: Span, other: Span) -> tuple[bool, int]:
    distance = max(one.start, other.start) - min(one.end, other.end)
    return distance < 0, distance


@given(st.text("ab", min_size=1, max_size=30), st.text("ab", min_size=1, max_size=3))
def test_choose_pair_agrees_with_trying_all(text: str, item: str) -> None:
    subjects, objects = find_spans(text, item), find_spans(text, "ab")
    if subjects and objects:
        chosen = choose_pair(subjects, objects)
        best = min(gap(one, other) for one in subjects for other in objects)
        assert gap(*chosen)[0] == best[0]
        if not best[0]:
            assert gap(*chosen) == best
