from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.duplicates import Match, TextIndex
from tripletune.errors import ConfigError

LONG = "百度在线网络技术有限公司于二零零零年一月一日在北京中关村创立，创始人是李彦宏。"
NEAR = LONG.replace("李彦宏", "李彦洪")


def find(*files: Sequence[str], threshold: float | None = 0.8) -> list[Match]:
    with TextIndex(threshold=threshold) as index:
        for texts in files:
            index.start_file()
            for text in texts:
                index.add(text)
        return list(index.find_matches())


def test_equal_texts_are_found_within_and_between_files() -> None:
    assert find(["甲。", "乙。", "甲。"], ["丙。", "乙。", "甲"], ["甲"]) == [
        Match(2, 0, "exact", False),
        Match(5, 0, "normalised", True),
        Match(6, 5, "exact", True),
        Match(4, 1, "exact", True),
    ]


def test_repeated_text_of_a_later_file_is_leak_and_duplicate() -> None:
    assert find(["甲"], ["甲", "甲"]) == [
        Match(1, 0, "exact", True),
        Match(2, 0, "exact", True),
        Match(2, 1, "exact", False),
    ]


def test_near_duplicates_are_found_with_their_similarity() -> None:
    (match,) = find([LONG, "别的一句话"], [NEAR])
    assert (match.index, match.other, match.kind, match.is_leak) == (2, 0, "near", True)
    # 37 letters, 35 pieces each; the last differs.
    assert match.similarity == 34 / 36
    assert find([LONG], [NEAR], threshold=None) == []
    assert find([LONG], [NEAR], threshold=0.95) == []


def test_files_are_told_by_number() -> None:
    with TextIndex(threshold=None) as index:
        index.start_file()
        index.add("a")
        index.start_file()
        index.start_file()
        index.add("b")
        assert (len(index), index.get_file(0), index.get_file(1)) == (2, 0, 2)


@given(st.lists(st.lists(st.sampled_from(["a", "b", "B", "c."]), max_size=5), max_size=3))
def test_equal_texts_are_found_as_by_comparing_all(files: list[list[str]]) -> None:
    texts = [(number, text) for number, file in enumerate(files) for text in file]
    forms = [text.lower().strip(".") for _, text in texts]
    expected = set()
    for later, (file, text) in enumerate(texts):
        for is_leak in (True, False):
            earlier = [
                other
                for other in range(later)
                if forms[other] == forms[later] and (texts[other][0] != file) is is_leak
            ]
            if earlier:
                exact = any(texts[other][1] == text for other in earlier)
                expected.add((later, is_leak, "exact" if exact else "normalised"))
    found = find(*files, threshold=None)
    assert {(match.index, match.is_leak, match.kind) for match in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_threshold_out_of_range_is_named(threshold: float) -> None:
    with pytest.raises(ConfigError, match=str(threshold)):
        TextIndex(threshold=threshold)


def test_no_text_is_no_match() -> None:
    assert find() == []
    assert find([], []) == []
