"""The relations of a schema, as states that all texts share."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tripletune.extraction.states import ENTER_OBJECT, Chain, State
from tripletune.extraction.vocabulary import Vocabulary

__all__ = ["RelationTree"]

_ITEM = "甲"
_BEFORE = f"({_ITEM},"


class RelationTree:
    """The relations as paths of symbols, each closed by comma and blank.

    A relation is written in the tokens that the tokenizer cuts it into behind comma and blank,
    which is how training has shown it; where those cannot be told, any tokens that spell it do.

    Args:
        written: The relations, rewritten by the tokenizer and escaped.
        vocabulary: The tokens.

    Attributes:
        root: The state in which a relation begins.
        first_tokens: The tokens that open a relation, the blank before it included; None when
            they cannot be told.
    """

    def __init__(self, written: Iterable[str], vocabulary: Vocabulary) -> None:
        self.root = Chain()
        self._canonical: dict[int, tuple[State, dict[int, None]]] = {}
        self._first_tokens: dict[int, None] = {}
        names = sorted(written)
        for name in names:
            self._insert(name, vocabulary)
        is_told = all(self._note_tokens(name, vocabulary) for name in names)
        self.first_tokens = list(self._first_tokens) if is_told else None
        for state, tokens in self._canonical.values() if is_told else ():
            state.allowed = np.array(list(tokens), dtype=np.int64)

    def _insert(self, name: str, vocabulary: Vocabulary) -> None:
        node = self.root
        for character in name:
            following = node.open(character)
            node.add_character(character, following, vocabulary)
            node = following
        node.open(",").next[" "] = ENTER_OBJECT

    def _note_tokens(self, name: str, vocabulary: Vocabulary) -> bool:
        """Notes the tokens of one relation; False when they do not begin and end with it."""
        text = f"{_BEFORE} {name}, {_ITEM})"
        num_before = len(_BEFORE.encode())
        state: State | None = None
        num_bytes = 0
        for number, token in enumerate(vocabulary.encode(text)):
            symbols = vocabulary.symbols[token]
            if number == 0 and vocabulary.hides_first_blank:
                symbols = symbols.removeprefix(" ")
            if num_bytes == num_before and symbols[:1] == " ":
                self._first_tokens[token] = None
                state = _walk(self.root, symbols[1:])
            elif state is not None:
                after = _walk(state, symbols)
                if after is None:
                    return False
                self._canonical.setdefault(id(state), (state, {}))[1][token] = None
                state = after
            if state is not None and state.step(" ") is ENTER_OBJECT:
                return True
            num_bytes += len(symbols.encode("utf-8", "surrogateescape"))
        return False


def _walk(state: State | None, symbols: str) -> State | None:
    for symbol in symbols:
        state = state.step(symbol) if state else None
    return state
