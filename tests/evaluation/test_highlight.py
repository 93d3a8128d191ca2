from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripletune.evaluation.highlight import Segment, split_text


def test_split_text_marks_every_mention():
    assert split_text("甲在乙，甲在丙", {"correct": [("甲", "位于", "乙")]}) == [
        Segment("甲", ("correct",)),
        Segment("在", ()),
        Segment("乙", ("correct",)),
        Segment("，", ()),
        Segment("甲", ("correct",)),
        Segment("在丙", ()),
    ]


def test_split_text_keeps_both_kinds_where_they_overlap():
    segments = split_text(
        "毕业于北京大学",
        {"missed": [("无", "校", "北京大学")], "wrong": [("无", "校", "北京")]},
    )
    assert segments == [
        Segment("毕业于", ()),
        Segment("北京", ("missed", "wrong")),
        Segment("大学", ("missed",)),
    ]


def test_split_text_without_mentions_is_one_segment():
    assert split_text("甲在乙", {"wrong": [("丙", "位于", "丁")]}) == [Segment("甲在乙", ())]


NAMES = st.text("甲乙丙", min_size=1, max_size=2)
KEYS = st.lists(st.tuples(NAMES, st.just("在"), NAMES), max_size=4)


@given(st.text("甲乙丙", max_size=12), KEYS, KEYS)
def test_split_text_joins_to_the_text(text, first, second):
    segments = split_text(text, {"correct": first, "wrong": second})
    assert "".join(segment.text for segment in segments) == text
