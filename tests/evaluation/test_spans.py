from __future__ import annotations

import pytest

from tripletune.evaluation.spans import find_mentions, is_near, is_overlapping, match_partially

TEXT = "张三毕业于北京大学医学部，李四毕业于北京。"


def test_find_mentions_finds_every_place():
    assert find_mentions(TEXT, "北京") == [(5, 7), (18, 20)]


@pytest.mark.parametrize("name", ["", "上海"])
def test_find_mentions_of_what_is_not_there_is_empty(name):
    assert find_mentions(TEXT, name) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("北京大学", "北京", True),
        ("北京", "北京大学医学部", True),
        ("北京大学", "大学医学部", True),
        ("北京", "医学部", False),
        # "三毕" and "张三" share a character of the text; "业于张" does not stand in it.
        ("张三", "三毕", True),
        ("张三", "业于张", False),
        # Equal characters, but in different places.
        ("大学", "医学部", False),
        # Contained, yet the longer name does not stand in the text.
        ("北京", "北京市", False),
        ("", "北京", False),
    ],
)
def test_is_overlapping_compares_places_in_the_text(first, second, expected):
    assert is_overlapping(TEXT, first, second) is expected
    assert is_overlapping(TEXT, second, first) is expected


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (("张三", "毕业院校", "北京大学"), True),
        (("张三", "毕业院校", "北京"), True),
        (("张", "毕业院校", "北京大学医学部"), True),
        (("张三", "工作单位", "北京大学"), False),
        (("李四", "毕业院校", "北京大学"), False),
        (("张三", "毕业院校", "李四"), False),
    ],
)
def test_is_near_needs_the_relation_and_both_entities(predicted, expected):
    assert is_near(TEXT, ("张三", "毕业院校", "北京大学"), predicted) is expected


def test_match_partially_uses_each_triplet_once():
    gold = [("张三", "毕业院校", "北京大学")]
    predicted = [("张三", "毕业院校", "北京"), ("张三", "毕业院校", "大学")]
    assert match_partially(TEXT, gold, predicted) == [(0, 0)]


def test_match_partially_finds_the_largest_matching():
    # The first prediction overlaps both gold triplets, the second only the first one: taking the
    # first that fits would leave the second prediction alone.
    gold = [("张三", "毕业院校", "北京大学"), ("张三", "毕业院校", "医学部")]
    predicted = [("张三", "毕业院校", "大学医学部"), ("张三", "毕业院校", "北京")]
    assert match_partially(TEXT, gold, predicted) == [(0, 1), (1, 0)]


def test_match_partially_moves_a_long_chain():
    # Each prediction overlaps its own gold triplet and the next; the last prediction overlaps the
    # first gold triplet only, so that all others have to move on by one.
    names = [chr(0x4E00 + number) for number in range(1200)]
    text = "".join(names)
    gold = [("一", "含", names[number]) for number in range(1200)]
    predicted = [("一", "含", names[number] + names[number + 1]) for number in range(1199)]
    predicted.append(("一", "含", names[0]))
    pairs = match_partially(text, gold, predicted)
    assert sorted(pairs) == [(0, 1199), *((number + 1, number) for number in range(1199))]
