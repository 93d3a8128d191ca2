from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.duplicates import TextIndex
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
def test_leaks_are_those_that_the_check_of_data_finds(
    training: list[str], validation: list[str]
) -> None:
    with TextIndex(threshold=None) as index:
        for texts in (training, validation):
            index.start_file()
            for text in texts:
                index.add(text)
        matches = [match for match in index.find_matches() if match.is_leak]
    expected = {match.index - len(training) for match in matches}
    assert set(find_leaks(training, validation)) == expected
