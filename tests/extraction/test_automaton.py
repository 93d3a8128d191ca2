from __future__ import annotations

from typing import Any

import pytest

from tripletune.extraction.automaton import TextAutomaton
from tripletune.extraction.relation_tree import RelationTree
from tripletune.extraction.text_form import TextFormBuilder
from tripletune.extraction.vocabulary import Vocabulary

SYMBOLS = [
    "", *"甲乙丙在,() \n无", "甲乙", "乙丙", "丙)", "丙)\n(", "甲,", ", 在", "(甲", "在, 乙",
    "丁甲", "\udce4", "\udcb8", "\udc81",
]  # fmt: skip


def build(text: str, relations: tuple[str, ...] = ("在",), *, hides: bool = False) -> TextAutomaton:
    vocabulary = Vocabulary(
        SYMBOLS,
        end_token_id=0,
        hides_first_blank=hides,
        spells_all_in_bytes=False,
        rewrite=str,
        encode=lambda text: [],
    )
    return TextAutomaton(
        TextFormBuilder(vocabulary).build(text), RelationTree(relations, vocabulary), vocabulary
    )


def read_allowed(automaton: TextAutomaton, done: str) -> set[str]:
    state: Any = automaton.advance(automaton.start, done)
    assert state is not None
    found = automaton.find_allowed(state).tolist()
    assert len(found) == len(set(found))
    return {SYMBOLS[index] or "<end>" for index in found}


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ("", {"无", "(", "(甲"}),
        ("无", {"<end>"}),
        ("(", {"甲", "乙", "丙", "甲乙", "乙丙", "甲,"}),
        ("(甲", {"乙", "乙丙", ",", ", 在"}),
        ("(甲乙", {"丙", ",", ", 在"}),
        ("(甲,", {" "}),
        ("(甲, ", {"在", "在, 乙"}),
        ("(甲, 在", {","}),
        ("(甲, 在, ", {"甲", "乙", "丙", "甲乙", "乙丙", "丙)", "丙)\n("}),
        ("(甲, 在, 丙", {")"}),
        ("(甲, 在, 丙)", {"<end>", "\n"}),
        ("(甲, 在, 丙)\n", {"(", "(甲"}),
    ],
)
def test_text_automaton_allows_the_tokens_that_can_go_on(done: str, expected: set[str]) -> None:
    assert read_allowed(build("甲乙丙"), done) == expected


def test_text_automaton_keeps_apart_a_bracket_in_the_text_and_one_that_closes() -> None:
    automaton = build("甲)乙")
    assert read_allowed(automaton, "(甲, 在, 甲)") == {"<end>", "\n", "乙", ")"}
    assert read_allowed(automaton, "(甲, 在, 甲)乙") == {")"}


def test_text_automaton_keeps_apart_a_comma_in_the_text_and_one_that_closes() -> None:
    automaton = build("甲,乙")
    assert read_allowed(automaton, "(甲,") == {" ", "乙", ",", ", 在"}
    assert read_allowed(automaton, "(甲,乙") == {",", ", 在"}


def test_text_automaton_follows_every_place_that_fits() -> None:
    automaton = build("甲乙甲丙")
    assert read_allowed(automaton, "(甲") == {"乙", "丙", ",", ", 在"}
    assert read_allowed(automaton, "(乙甲") == {"丙", ",", ", 在"}


def test_text_automaton_spells_characters_without_token_in_bytes() -> None:
    automaton = build("甲丁甲")
    assert read_allowed(automaton, "(") == {"甲", "甲,", "丁甲", "\udce4"}
    assert read_allowed(automaton, "(\udce4\udcb8") == {"\udc81"}
    assert read_allowed(automaton, "(\udce4\udcb8\udc81") == {"甲", "甲,", ",", ", 在"}
    assert read_allowed(automaton, "(甲") == {"丁甲", "\udce4", ",", ", 在"}


def test_text_automaton_without_anything_to_copy_allows_the_empty_target_only() -> None:
    assert read_allowed(build(" \n"), "") == {"无"}


def test_text_automaton_lets_the_hidden_blank_be_written() -> None:
    automaton = build("甲", hides=True)
    assert read_allowed(automaton, "") == {" ", "无", "(", "(甲"}
    assert read_allowed(automaton, " ") == {"无", "(", "(甲"}


def test_text_automaton_advances_nowhere_with_what_is_not_allowed() -> None:
    automaton = build("甲")
    assert automaton.advance(automaton.start, "(乙") is None
