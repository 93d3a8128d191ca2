from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.errors import ConfigError
from tripletune.extraction.windows import (
    Window,
    choose_window_chars,
    iter_sentences,
    iter_windows,
    merge_windows,
)
from tripletune.schema import Extraction, Span, Triplet


def cut(text: str, max_chars: int, max_overlap_chars: int) -> list[Window]:
    return list(iter_windows(text, max_chars=max_chars, max_overlap_chars=max_overlap_chars))


def test_iter_windows_leaves_a_short_text_whole() -> None:
    assert cut("一。二。", 4, 2) == [Window(0, "一。二。")]


def test_iter_windows_repeats_the_last_sentence() -> None:
    assert cut("一一。二二。三三。四四。", 6, 3) == [
        Window(0, "一一。二二。"),
        Window(3, "二二。三三。"),
        Window(6, "三三。四四。"),
    ]


def test_iter_windows_cuts_a_long_sentence_at_clauses() -> None:
    assert cut("一一，二二，三三，四四。", 6, 0) == [
        Window(0, "一一，二二，"),
        Window(6, "三三，四四。"),
    ]


def test_iter_windows_cuts_a_text_without_any_mark() -> None:
    assert [window.text for window in cut("甲" * 10, 4, 0)] == ["甲" * 4, "甲" * 4, "甲" * 2]


def test_iter_windows_repeats_nothing_where_there_is_no_room() -> None:
    assert cut("一一。二二二二。三三。", 6, 4) == [
        Window(0, "一一。"),
        Window(3, "二二二二。"),
        Window(8, "三三。"),
    ]


def test_iter_windows_repeats_the_last_clause_of_a_long_sentence() -> None:
    assert cut("一一一，二二。三三。", 8, 4) == [
        Window(0, "一一一，二二。"),
        Window(4, "二二。三三。"),
    ]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([], 320), ([10] * 5, 64), ([100] * 99 + [900], 100), ([900], 512)],
)
def test_choose_window_chars_goes_by_the_training_texts(lengths: list[int], expected: int) -> None:
    assert choose_window_chars(lengths) == expected


def test_iter_sentences_keeps_closing_quotes() -> None:
    text = "他说：“好。”走了！\n完"
    assert [text[start:end] for start, end in iter_sentences(text)] == [
        "他说：“好。”",
        "走了！\n",
        "完",
    ]


@given(st.text("甲乙丙，。！\n \x85a.", max_size=200), st.integers(1, 30), st.integers(0, 29))
def test_iter_windows_covers_the_document(text: str, max_chars: int, overlap: int) -> None:
    overlap = min(overlap, max_chars - 1)
    windows = cut(text, max_chars, overlap)
    end = 0
    for window in windows:
        assert window.start <= end
        assert text[window.start : window.start + len(window.text)] == window.text
        assert len(window.text) <= max_chars
        assert window.start + len(window.text) > end or not text
        end = window.start + len(window.text)
    assert end == len(text)


def test_iter_windows_refuses_an_overlap_as_long_as_the_window() -> None:
    with pytest.raises(ConfigError, match="4, 4; need"):
        cut("甲", 4, 4)


def test_merge_windows_moves_spans_and_counts_a_triplet_once() -> None:
    text = "一一。甲在乙。"
    triplet = Triplet("甲", "在", "乙", subject_span=Span(3, 4), object_span=Span(5, 6))
    again = Triplet(
        "甲", "在", "乙", subject_span=Span(0, 1), object_span=Span(2, 3), confidence=0.5
    )
    merged = merge_windows(
        text,
        [
            (Window(0, text), Extraction(text, (triplet,), output="(甲, 在, 乙)")),
            (Window(3, "甲在乙。"), Extraction("甲在乙。", (again,), output="(甲, 在, 乙)")),
            (Window(0, "一一。"), Extraction("一一。", output="无", problems=("late",))),
        ],
    )
    assert merged.triplets == (triplet,)
    assert merged.triplets[0].confidence == 0.5
    assert merged.triplets[0].subject_span == Span(3, 4)
    assert merged.output == "(甲, 在, 乙)\n(甲, 在, 乙)"
    assert merged.problems == ("characters 0 to 3: late",)


def test_merge_windows_of_nothing_is_the_empty_target() -> None:
    assert merge_windows("一", [(Window(0, "一"), Extraction("一", output="无"))]).output == "无"
