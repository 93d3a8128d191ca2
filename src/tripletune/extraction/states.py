"""States of the output and the symbols that lead from one to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tripletune.extraction.vocabulary import Vocabulary

__all__ = ["ENTER_OBJECT", "Chain", "State", "TokenArray"]

TokenArray = NDArray[np.int64]


class State:
    """A state of the output.

    Attributes:
        allowed: The tokens that may come next, once they are known.
        is_final: Whether the output may end here.
    """

    __slots__ = ("allowed", "is_final")

    def __init__(self, *, is_final: bool = False) -> None:
        self.allowed: TokenArray | None = None
        self.is_final = is_final

    def step(self, symbol: str) -> State | None:
        """The state after a symbol; None when it may not come."""
        raise NotImplementedError


class Chain(State):
    """A state whose transitions are filled in from outside.

    Attributes:
        next: The state after each symbol.
    """

    __slots__ = ("next",)

    def __init__(self, *, is_final: bool = False) -> None:
        super().__init__(is_final=is_final)
        self.next: dict[str, State] = {}

    def step(self, symbol: str) -> State | None:
        """The state after a symbol; None when it may not come."""
        return self.next.get(symbol)

    def open(self, symbol: str) -> Chain:
        """The chain after a symbol, made when there is none."""
        following = self.next.get(symbol)
        if not isinstance(following, Chain):
            following = Chain()
            self.next[symbol] = following
        return following

    def add_character(self, character: str, target: State, vocabulary: Vocabulary) -> None:
        """Makes a character lead to `target`, in bytes too where the vocabulary spells it so."""
        self.next[character] = target
        spelling = vocabulary.spell(character)
        if spelling is not None:
            node = self
            for symbol in spelling[:-1]:
                node = node.open(symbol)
            node.next[spelling[-1]] = target


ENTER_OBJECT = Chain()
"""Stands for "the object of whatever text this is" in states that texts share."""
