from __future__ import annotations

import pytest

from tripletune.data.inspection import SEVERITIES, TITLES, find_nearest, inspect_example
from tripletune.schema import Example, Triplet

GOOD = Triplet("甲公司", "位于", "乙市")
TEXT = "甲公司位于乙市。"


def kinds(text: str, *triplets: Triplet) -> list[str]:
    return [remark.kind for remark in inspect_example(Example(text, triplets))]


@pytest.mark.parametrize(
    ("text", "triplets", "expected"),
    [
        (TEXT, (GOOD,), []),
        (TEXT + "\ufffd", (), ["replacement_character"]),
        (TEXT + "锟斤拷", (), ["replacement_character"]),
        (TEXT + "\x08", (), ["control_character"]),
        (TEXT + "\ue313", (), ["private_use_character"]),
        ("甲\u200b公司", (), ["invisible_character"]),
        (" " + TEXT, (), ["surrounding_space"]),
        (TEXT + "\n第二行\t好", (), []),
        (TEXT, (GOOD, GOOD), ["repeated_triplet"]),
        (TEXT, (Triplet("甲公司", "位于 ", "乙市"),), ["surrounding_space"]),
        (TEXT, (Triplet("甲公司", "位于", "丙市"),), ["item_not_in_text"]),
        (TEXT, (Triplet("乙市", "位于", "乙市"),), ["subject_is_object"]),
        ("长" * 61, (Triplet("长" * 61, "r", "长"),), ["long_item"]),
    ],
)
def test_inspection_remarks_on(
    text: str, triplets: tuple[Triplet, ...], expected: list[str]
) -> None:
    assert kinds(text, *triplets) == expected


def test_remark_names_place_and_value() -> None:
    (remark,) = inspect_example(Example("ab\x08c"))
    assert remark.message == r"a control character (U+0008) at character 2 of 'ab\x08c'"


def test_absent_item_comes_with_the_nearest_words() -> None:
    (remark,) = inspect_example(
        Example("《Java程序设计》出版", (Triplet("java程序设计", "r", "出版"),))
    )
    assert remark.message == (
        "subject 'java程序设计' is not in '《Java程序设计》出版'; nearest is 'Java程序设计'"
    )


@pytest.mark.parametrize(
    ("item", "text", "expected"),
    [
        ("北京百度公司", "总部在北京百渡公司。", "北京百渡公司"),
        ("ABC", "xabcx", "abc"),
        ("完全不同", "没有一点关系的话", None),
    ],
)
def test_find_nearest(item: str, text: str, expected: str | None) -> None:
    found = find_nearest(item, text)
    assert (None if found is None else found[0]) == expected


def test_every_kind_of_finding_has_a_severity_and_a_title() -> None:
    assert list(TITLES) == list(SEVERITIES)
    assert len(set(TITLES.values())) == len(TITLES)
