from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.errors import ConfigError
from tripletune.extraction.windows import (
    Window,
    choose_window,
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
    ("texts", "expected"),
    [
        ([], (320, None)),
        (["甲" * 10] * 5, (64, 1)),
        (["甲" * 100] * 99 + ["甲" * 900], (100, 1)),
        (["甲" * 900], (512, 1)),
        (["甲。乙。"] * 6 + ["甲。"] * 94, (64, 2)),
        (["甲。乙。"] * 5 + ["甲。"] * 95, (64, 1)),
    ],
)
def test_choose_window_goes_by_the_training_texts(
    texts: list[str], expected: tuple[int, int | None]
) -> None:
    assert choose_window(texts) == expected


@pytest.mark.parametrize(
    ("max_sentences", "expected"),
    [
        (1, ["一一。", "二二。", "三三。", "四四。"]),
        (2, ["一一。二二。", "二二。三三。", "三三。四四。"]),
        (3, ["一一。二二。三三。", "三三。四四。"]),
        (4, ["一一。二二。三三。四四。"]),
    ],
)
def test_iter_windows_holds_so_many_sentences(max_sentences: int, expected: list[str]) -> None:
    windows = iter_windows(
        "一一。二二。三三。四四。", max_chars=12, max_overlap_chars=5, max_sentences=max_sentences
    )
    assert [window.text for window in windows] == expected


def test_iter_windows_of_one_sentence_repeat_clauses_of_one_that_is_cut() -> None:
    windows = iter_windows(
        "一一，二二，三三，四四，五五。六。", max_chars=9, max_overlap_chars=4, max_sentences=1
    )
    assert [window.text for window in windows] == [
        "一一，二二，三三，",
        "三三，四四，五五。",
        "六。",
    ]


def test_iter_windows_refuses_windows_without_sentences() -> None:
    with pytest.raises(ConfigError, match="max_sentences: 0 is too few"):
        list(iter_windows("甲", max_chars=4, max_overlap_chars=1, max_sentences=0))


def test_iter_sentences_keeps_closing_quotes() -> None:
    text = "他说：“好。”走了！\n完"
    assert [text[start:end] for start, end in iter_sentences(text)] == [
        "他说：“好。”",
        "走了！\n",
        "完",
    ]


@given(
    st.text("甲乙丙，。！\n \x85a.", max_size=200),
    st.integers(1, 30),
    st.integers(0, 29),
    st.none() | st.integers(1, 4),
)
def test_iter_windows_covers_the_document(
    text: str, max_chars: int, overlap: int, max_sentences: int | None
) -> None:
    windows = list(
        iter_windows(
            text,
            max_chars=max_chars,
            max_overlap_chars=min(overlap, max_chars - 1),
            max_sentences=max_sentences,
        )
    )
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


def test_merge_windows_names_a_problem_once() -> None:
    late, odd = Extraction("甲乙", problems=("late",)), Extraction("甲乙", problems=("odd", "late"))
    parts = [late, late, odd, late, late]
    merged = merge_windows(
        "甲乙" * 4,
        [(Window(start, "甲乙"), one) for start, one in zip((0, 0, 2, 4, 6), parts, strict=True)],
    )
    assert merged.problems == (
        "characters 0 to 2, 2 to 4, 4 to 6 and 1 more windows: late",
        "characters 2 to 4: odd",
    )


def test_merge_windows_of_nothing_is_the_empty_target() -> None:
    assert merge_windows("一", [(Window(0, "一"), Extraction("一", output="无"))]).output == "无"
