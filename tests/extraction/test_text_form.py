from __future__ import annotations

from typing import Any

import pytest

from tests.extraction.builders import build_byte_tokenizer, build_sentencepiece
from tripletune.extraction.text_form import TextFormBuilder, escape_item
from tripletune.extraction.vocabulary import build_vocabulary
from tripletune.schema import Span


@pytest.fixture(scope="module")
def nfkc(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer = build_sentencepiece(tmp_path_factory.mktemp("vocabulary"))
    return TextFormBuilder(build_vocabulary(tokenizer))


@pytest.fixture(scope="module")
def plain() -> Any:
    return TextFormBuilder(build_vocabulary(build_byte_tokenizer()))


def show(form: Any) -> str:
    return "".join(symbol or "|" for symbol in form.symbols)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("甲，乙", "甲,乙|"),
        ("甲，  乙", r"甲\,  乙|"),
        ("甲,", "甲,|"),
        ("甲, ", "甲,||"),
        ("甲\n乙\\\r丙", r"甲\n乙\\\r丙|"),
        ("  甲 ", "  甲||"),
        ("甲\ud800 乙", "甲| 乙|"),
        ("甲, \ud800", "甲,|||"),
        ("㎏", "kg|"),
        ("甲,´", r"甲\, ́|"),
        ("🄁 甲", "| 甲|"),
        ("", "|"),
    ],
)
def test_text_form_is_written_and_escaped_in_context(nfkc: Any, text: str, expected: str) -> None:
    assert show(nfkc.build(text)) == expected


def test_text_form_without_normalisation_keeps_characters(plain: Any) -> None:
    assert show(plain.build("甲，㎏")) == "甲，㎏|"


def test_text_form_lets_items_begin_and_end_at_original_characters_only(nfkc: Any) -> None:
    form = nfkc.build("a ㎏, b")
    assert show(form) == r"a kg\, b|"
    assert form.starts == [0, 2, 4, 7]
    assert [place for place, closes in enumerate(form.closes) if closes] == [1, 4, 8]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("kg", [Span(1, 2), Span(5, 6)]),
        ("k", []),
        ("5", [Span(0, 1), Span(4, 5)]),
        (r"kg\, 5", [Span(1, 5)]),
        ("丁", []),
    ],
)
def test_text_form_finds_items_in_the_original(
    nfkc: Any, written: str, expected: list[Span]
) -> None:
    assert nfkc.build("５㎏， 5㎏").find(written) == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [("甲", "甲"), ("a, b,c", r"a\, b,c"), ("a\\\n", r"a\\\n"), ("a,", "a,")],
)
def test_escape_item_escapes_what_the_language_splits_at(item: str, expected: str) -> None:
    assert escape_item(item) == expected
