"""Keeps one row of a batch within the output that its text allows, and reads what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp

import numpy as np

from tripletune.data.linearize import EMPTY_TARGET
from tripletune.errors import ConfigError
from tripletune.extraction.automaton import TextAutomaton
from tripletune.extraction.states import State, TokenArray
from tripletune.extraction.vocabulary import Vocabulary, restore_characters

__all__ = ["TripletGuide", "WrittenLine", "score_lines"]

_TOKENS_OF_A_SHORT_TRIPLET = 6
_NOTHING: TokenArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class WrittenLine:
    """One line of output.

    Attributes:
        text: The line as it was written.
        confidence: See `score_lines`.
    """

    text: str
    confidence: float


class TripletGuide:
    """Says which tokens may come next, for one text.

    The output ends early, with what is complete, when a triplet is written a second time (a model
    that repeats itself has nothing more to say), when `max_triplets` are written, or when the
    tokens are used up.

    Args:
        build_automaton: Makes the states of the output for the text; called when they are needed.
        vocabulary: The tokens.
        max_triplets: Most triplets to write, at least 1.
        max_tokens: Most tokens to write, end token included.

    Attributes:
        token_ids: What was written.
    """

    def __init__(
        self,
        build_automaton: Callable[[], TextAutomaton],
        vocabulary: Vocabulary,
        *,
        max_triplets: int,
        max_tokens: int,
    ) -> None:
        self.token_ids: list[int] = []
        self._vocabulary = vocabulary
        self._build_automaton = build_automaton
        self._max_triplets = max_triplets
        self._max_tokens = max_tokens
        self._lines: dict[str, None] = {}
        self._line = ""
        self._repeated = ""

    @cached_property
    def _automaton(self) -> TextAutomaton:
        return self._build_automaton()

    @cached_property
    def _state(self) -> State:
        return self._automaton.start

    def allowed(self) -> TokenArray:
        """Ids of the tokens that may come next; none ends the row."""
        if self._repeated:
            return _NOTHING
        allowed = self._automaton.find_allowed(self._state)
        num_left = self._max_tokens - len(self.token_ids)
        if len(self._lines) + 1 >= self._max_triplets or num_left <= _TOKENS_OF_A_SHORT_TRIPLET:
            allowed = allowed[~self._vocabulary.breaks_line[allowed]]
        return allowed

    @property
    def is_finished(self) -> bool:
        """Whether the output ends here, whatever the model would write next."""
        return bool(self._repeated)

    def advance(self, token_id: int) -> None:
        """Takes note of a token.

        Raises:
            ConfigError: it is not an allowed one, or it is the end token.
        """
        symbols = self._vocabulary.symbols[token_id]
        state = self._automaton.advance(self._state, symbols)
        if state is None:
            raise ConfigError(f"token {token_id!r}, {symbols!r}: not among the allowed tokens")
        self._state = state
        if not self.token_ids and self._vocabulary.hides_first_blank:
            symbols = symbols.removeprefix(" ")
        self.token_ids.append(token_id)
        *complete, rest = symbols.split("\n")
        for part in complete:
            self._close_line(self._line + part)
            self._line = ""
        self._line += rest

    def prepare(self) -> None:
        """Finds ahead of time, while the model reads the prompt, how an item may begin.

        That is the most of a guide's work, and what the first tokens would wait for.
        """
        self._automaton.find_allowed(self._automaton.start_of(is_object=False))

    def release(self) -> None:
        """Lets go of the states, which are the most of a guide; it can no longer be used."""
        self.__dict__.pop("_state", None)
        automaton: TextAutomaton | None = self.__dict__.pop("_automaton", None)
        if automaton is not None:
            automaton.clear()

    @property
    def closed_lines(self) -> list[str]:
        """The lines that a line feed has closed, each once."""
        return list(self._lines)

    def find_lines(self) -> tuple[list[str], str]:
        """The complete lines, each once, and what was wrong with the end of the output, or ""."""
        lines = dict(self._lines)
        if self._repeated:
            return list(lines), f"{self._repeated!r} was repeated; the output was ended there"
        if restore_characters(self._line) == EMPTY_TARGET:
            return [], ""
        if not self._state.is_final:
            return list(lines), f"the output did not end within {self._max_tokens} tokens"
        last = restore_characters(self._line)
        if last in lines:
            return list(lines), f"{last!r} was repeated; the output was ended there"
        lines[last] = None
        return list(lines), ""

    def _close_line(self, line: str) -> None:
        line = restore_characters(line)
        if line in self._lines and not self._repeated:
            self._repeated = line
        elif not self._repeated:
            self._lines[line] = None


def score_lines(
    vocabulary: Vocabulary, token_ids: Sequence[int], log_probabilities: Sequence[float]
) -> list[WrittenLine]:
    """The lines of an output with the confidence of each.

    The confidence of a line is the product of the probabilities of the tokens that wrote it, each
    renormalised over the tokens that were allowed in its place: the probability that the model,
    held to the allowed outputs, writes this line after the lines before it. The line feed that
    begins a line is part of it (the decision to go on), and so is the first token of the output;
    the token that ends the output is not. A token that holds the end of a line and the start of
    the next counts for both.

    Args:
        vocabulary: What the tokens write.
        token_ids: The output, without its end token.
        log_probabilities: One for each token; further ones are not looked at.
    """
    texts, sums = [""], [0.0]
    for place, token in enumerate(token_ids):
        symbols = vocabulary.symbols[token] if token < len(vocabulary.symbols) else ""
        if place == 0 and vocabulary.hides_first_blank:
            symbols = symbols.removeprefix(" ")
        score = log_probabilities[place]
        if not symbols.startswith("\n"):
            sums[-1] += score
        first, *others = symbols.split("\n")
        texts[-1] += first
        texts += others
        sums += [score] * len(others)
    return [
        WrittenLine(restore_characters(text), min(1.0, exp(total)))
        for text, total in zip(texts, sums, strict=True)
    ]
