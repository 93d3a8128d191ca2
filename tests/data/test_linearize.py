from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tripletune.data.linearize import (
    EMPTY_TARGET,
    ParsedTarget,
    arrange_triplets,
    parse_free,
    parse_target,
    render_target,
)
from tripletune.errors import DataError
from tripletune.schema import Span, Triplet

ITEMS = st.one_of(
    st.text(min_size=1),
    st.text(alphabet="甲乙(),，（） \\nrt\n\r,\u2028\u0085\x1c无_", min_size=1),
).filter(str.strip)
TRIPLETS = st.lists(st.builds(Triplet, ITEMS, ITEMS, ITEMS), max_size=5)


@given(TRIPLETS)
@example([Triplet("a,", " b", ",")])
@example([Triplet("\\", "\\n", "\\,")])
@example([Triplet("a, b", ", ", "c\r\nd")] if ", ".strip() else [])
@example([Triplet("(", ")", "无")])
@example([])
def test_parse_gives_back_what_was_rendered(triplets: list[Triplet]) -> None:
    assert parse_target(render_target(triplets)) == tuple(triplets)


@given(TRIPLETS)
def test_rendered_text_has_one_line_for_each_triplet(triplets: list[Triplet]) -> None:
    assert len(render_target(triplets).split("\n")) == max(1, len(triplets))


def test_arrange_follows_the_text_subject_first() -> None:
    text = "甲生于乙，父亲丙，母亲丁；甲是人。"
    given = [("丁", "儿子", "甲"), ("甲", "母亲", "丁"), ("甲", "父亲", "丙"), ("甲", "生于", "乙")]
    arranged = arrange_triplets(text, [Triplet(*key) for key in given])
    assert [triplet.key for triplet in arranged] == [given[3], given[2], given[1], given[0]]


def test_arrange_believes_spans_and_puts_what_is_not_in_the_text_last() -> None:
    second = Triplet("甲", "a", "乙", subject_span=Span(2, 3), object_span=Span(3, 4))
    absent, half = Triplet("丙", "a", "乙"), Triplet("甲", "a", "丙")
    first = Triplet("甲", "b", "乙")
    arranged = arrange_triplets("甲乙甲乙", [absent, half, second, first])
    assert arranged == (first, half, second, absent)


def test_arrange_keeps_the_first_of_equal_triplets_and_the_order_in_one_place() -> None:
    given = [
        Triplet("甲", "票房", "1亿", object_slots=(("inArea", "中国"),)),
        Triplet("甲", "收入", "1亿"),
        Triplet("甲", "票房", "1亿", object_slots=(("inArea", "北美"),)),
    ]
    arranged = arrange_triplets("甲1亿", given)
    assert [triplet.key for triplet in arranged] == [given[0].key, given[1].key]
    assert arranged[0].object_slots == (("inArea", "中国"),)


@given(TRIPLETS, st.text())
def test_arrange_loses_nothing_and_changes_nothing_twice(
    triplets: list[Triplet], text: str
) -> None:
    arranged = arrange_triplets(text, triplets)
    assert set(arranged) == set(triplets)
    assert len(arranged) == len(set(triplets))
    assert arrange_triplets(text, arranged) == arranged


@given(st.text())
def test_free_parse_never_raises(output: str) -> None:
    parsed = parse_free(output)
    assert len(set(parsed.triplets)) == len(parsed.triplets)


@given(st.text())
def test_exact_parse_raises_data_errors_only(target: str) -> None:
    try:
        triplets = parse_target(target)
    except DataError:
        return
    assert all(isinstance(triplet, Triplet) for triplet in triplets)


def test_render_leaves_the_usual_item_as_it_is() -> None:
    triplets = [Triplet("史蒂夫·乔布斯", "创立", "苹果（Apple）"), Triplet("甲,乙", "r", '"丙"')]
    assert render_target(triplets) == '(史蒂夫·乔布斯, 创立, 苹果（Apple）)\n(甲,乙, r, "丙")'


def test_render_escapes_what_the_text_is_split_at() -> None:
    assert render_target([Triplet("a, b", "c\nd", "e\\f\r")]) == r"(a\, b, c\nd, e\\f\r)"


def test_nothing_to_extract_has_its_own_text() -> None:
    assert (EMPTY_TARGET, render_target([]), parse_target("无")) == ("无", "无", ())


@pytest.mark.parametrize("target", ["", "a, b, c", "(a, b)", "(a, b, c, d)", "(a, b, c)\n"])
def test_exact_parse_names_the_line_that_does_not_fit(target: str) -> None:
    with pytest.raises(DataError, match=r"line [12]: "):
        parse_target(target)


@pytest.mark.parametrize(
    "output",
    [
        "(甲, 位于, 乙)",
        "（甲，位于，乙）。",
        "- (甲,位于,乙)",
        "2、（ 甲 ， 位于 ， 乙 ）；",
        "(1) (甲, 位于, 乙)\n(甲, 位于, 乙)",
    ],
)
def test_free_parse_reads_other_forms(output: str) -> None:
    assert parse_free(output) == ParsedTarget((Triplet("甲", "位于", "乙"),), ())


def test_free_parse_reports_what_it_does_not_read() -> None:
    parsed = parse_free("好的，如下：\n(甲, 位于, 乙)\n(甲, 乙)\n(甲, , 乙)")
    assert parsed.triplets == (Triplet("甲", "位于", "乙"),)
    assert parsed.problems == (
        "'好的，如下：' is not in brackets",
        "'(甲, 乙)' has 2 items, not 3",
        "'(甲, , 乙)' has an empty item",
    )
