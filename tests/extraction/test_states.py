from __future__ import annotations

import pytest

from tripletune.extraction.states import Chain, State
from tripletune.extraction.vocabulary import Vocabulary


def build_vocabulary(symbols: list[str]) -> Vocabulary:
    return Vocabulary(
        symbols,
        end_token_id=0,
        hides_first_blank=False,
        spells_all_in_bytes=False,
        rewrite=str,
        encode=lambda text: [],
    )


def test_chain_steps_along_its_symbols() -> None:
    chain, target = Chain(), Chain(is_final=True)
    chain.next["a"] = target
    assert chain.step("a") is target
    assert chain.step("b") is None


def test_chain_opens_a_symbol_once() -> None:
    chain = Chain()
    assert chain.open("a") is chain.open("a")


def test_chain_adds_a_character_in_bytes_when_it_has_no_token() -> None:
    vocabulary = build_vocabulary(["", "\udcc3", "\udca9"])
    chain, target = Chain(), Chain()
    chain.add_character("é", target, vocabulary)
    first = chain.step("\udcc3")
    assert first is not None
    assert first.step("\udca9") is target
    assert chain.step("é") is target


def test_state_itself_has_no_steps() -> None:
    with pytest.raises(NotImplementedError):
        State().step("a")
