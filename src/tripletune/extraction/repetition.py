"""Ends free output that repeats itself.

A model that has nothing more to say may go on with what it said before, up to the limit, and holds
up the rest of the batch. Two signs of it are looked for while it writes: a line that was there
before, and tokens that go round in a circle within a line.
"""

from __future__ import annotations

from tripletune.extraction.vocabulary import Vocabulary, restore_characters

__all__ = ["FreeGuide"]

_LONGEST_CIRCLE = 24
_FEWEST_TOKENS = 48
_FEWEST_ROUNDS = 4
_TOKENS_BETWEEN_CHECKS = 8


class FreeGuide:
    """Allows every token, until the output repeats itself.

    Args:
        vocabulary: What tokens write. None: lines cannot be seen, only circles of tokens.

    Attributes:
        repeated: What was repeated, or "" as long as nothing was.
    """

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self.repeated = ""
        self._symbols = [] if vocabulary is None else vocabulary.symbols
        self._token_ids: list[int] = []
        self._lines: set[str] = set()
        self._line = ""

    @property
    def is_finished(self) -> bool:
        """Whether the output ends here."""
        return bool(self.repeated)

    def prepare(self) -> None:
        """Nothing can be done ahead."""

    def allowed(self) -> None:
        """Nothing in particular: every token may come next."""

    def advance(self, token_id: int) -> None:
        """Takes note of a token."""
        self._token_ids.append(token_id)
        *complete, rest = self._read(token_id).split("\n")
        for part in complete:
            line = (self._line + part).strip()
            self._line = ""
            if line in self._lines and not self.repeated:
                self.repeated = restore_characters(line)
            elif line:
                self._lines.add(line)
        self._line += rest
        if not self.repeated and len(self._token_ids) % _TOKENS_BETWEEN_CHECKS == 0:
            self._find_circle()

    def release(self) -> None:
        """Lets go of what was written; the guide can no longer be used."""
        self._token_ids, self._lines = [], set()

    def _find_circle(self) -> None:
        tokens = self._token_ids
        for length in range(1, min(_LONGEST_CIRCLE, len(tokens) // _FEWEST_ROUNDS) + 1):
            count = max(_FEWEST_TOKENS, _FEWEST_ROUNDS * length)
            if len(tokens) >= count and tokens[-count:-length] == tokens[length - count :]:
                text = "".join(self._read(token) for token in tokens[-length:])
                self.repeated = restore_characters(text).strip() or f"{length} tokens"
                return

    def _read(self, token_id: int) -> str:
        return self._symbols[token_id] if token_id < len(self._symbols) else ""
