from __future__ import annotations

from typing import Any

import pytest

from tests.extraction.builders import build_byte_tokenizer
from tripletune.extraction.repetition import FreeGuide
from tripletune.extraction.vocabulary import Vocabulary, build_vocabulary


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_byte_tokenizer()


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Any) -> Vocabulary:
    return build_vocabulary(tokenizer)


def write(guide: FreeGuide, token_ids: list[int]) -> int:
    """How many tokens the guide takes before it ends the output."""
    for number, token in enumerate(token_ids, 1):
        guide.advance(token)
        assert guide.allowed() is None
        if guide.is_finished:
            return number
    return len(token_ids)


def test_free_guide_ends_at_the_line_feed_of_a_repeated_line(
    tokenizer: Any, vocabulary: Vocabulary
) -> None:
    line = "(甲公司, 位于, 乙市)"
    before = tokenizer.encode(f"{line}\n(甲公司, 总部地点, 丙市)\n{line}")
    guide = FreeGuide(vocabulary)
    assert write(guide, [*before, *tokenizer.encode("\n(乙, 位于, 丙)")]) == len(before) + 1
    assert guide.repeated == line


def test_free_guide_lets_lines_begin_alike(tokenizer: Any, vocabulary: Vocabulary) -> None:
    text = "".join(f"(甲公司, 位于, {name}市)\n\n" for name in "甲乙丙丁戊己庚辛")
    guide = FreeGuide(vocabulary)
    write(guide, tokenizer.encode(text))
    assert not guide.is_finished
    assert guide.repeated == ""


def test_free_guide_ends_a_line_that_goes_round(tokenizer: Any, vocabulary: Vocabulary) -> None:
    circle = tokenizer.encode("乙丙x")
    guide = FreeGuide(vocabulary)
    start = tokenizer.encode("(甲, 位于, ")
    assert write(guide, start + circle * 50) <= len(start) + max(48, 4 * len(circle)) + 8
    assert sorted(guide.repeated) == sorted("乙丙x")


def test_free_guide_lets_a_word_come_some_times(tokenizer: Any, vocabulary: Vocabulary) -> None:
    guide = FreeGuide(vocabulary)
    write(guide, tokenizer.encode("(" + "x" * 40 + ", 位于, " + "y" * 40 + ")"))
    assert not guide.is_finished


def test_free_guide_sees_circles_without_a_vocabulary() -> None:
    guide = FreeGuide(None)
    assert write(guide, [7, 8, 9] * 50) == 48
    assert guide.repeated == "3 tokens"
