from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.fingerprint import normalise_text
from tripletune.data.leaks import find_leaks


def test_texts_that_differ_in_form_alone_are_leaks() -> None:
    training = ["甲公司位于乙市。", "Apple 成立于 1976 年", "丙"]
    validation = [
        "丁",
        "甲公司，位于乙市",
        "ＡＰＰＬＥ成立于1976年！",
        "甲公司位于丙市。",
        "甲公司位于乙市。",
    ]
    assert find_leaks(training, validation) == [1, 2, 4]


def test_nothing_leaks_where_there_is_nothing() -> None:
    assert find_leaks([], ["甲"]) == []
    assert find_leaks(["甲"], []) == []


@given(*[st.lists(st.text("甲乙A a，。", min_size=1, max_size=3), max_size=8)] * 2)
def test_leaks_are_the_texts_whose_form_is_trained_on(
    training: list[str], validation: list[str]
) -> None:
    trained_on = {normalise_text(text) for text in training}
    expected = [n for n, text in enumerate(validation) if normalise_text(text) in trained_on]
    assert find_leaks(training, validation) == expected
