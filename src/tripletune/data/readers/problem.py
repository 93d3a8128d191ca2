"""What a reader could not use or had to change, and who is told about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tripletune.errors import DataError

__all__ = ["Action", "Problem", "Problems", "RecordFault", "shorten"]

Action = Literal["dropped record", "dropped triplet", "changed"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that did not come through a reader as it stood in the file.

    Attributes:
        reason: A short name to count by, such as "broken_json" or "empty_item".
        action: What became of it: the record or a triplet was left out, or something was changed.
        message: What is wrong, the value, what is accepted.
        path: The file.
        line: One-based line (for Parquet and data sets: row) number, or None for the whole file.
        value: The offending text, shortened.
    """

    reason: str
    action: Action
    message: str
    path: str
    line: int | None
    value: str = ""

    def to_record(self) -> dict[str, str | int | None]:
        """The JSON object of this problem, as written to the side file of `convert`."""
        return {
            "path": self.path,
            "line": self.line,
            "reason": self.reason,
            "action": self.action,
            "message": self.message,
            "value": self.value,
        }


class RecordFault(DataError):
    """A record that cannot be used, with the reason it is counted under."""

    def __init__(self, reason: str, message: str, *, value: object = ""):
        self.reason = reason
        self.value = value
        super().__init__(message)


class Problems:
    """Where the reader of one file reports what it could not use.

    Without `on_problem` the first lost record or triplet raises a `DataError` with file and line;
    with it every problem is passed on and reading goes on. Changes that lose nothing (a repeated
    triplet merged, a masked name restored) never raise.

    `num_lost_triplets` counts the triplets dropped since a reader last set it to 0, which each does
    at the beginning of a record.

    Args:
        path: The file being read.
        on_problem: Called with each `Problem`; None raises instead.
    """

    def __init__(self, path: Path, on_problem: Callable[[Problem], None] | None = None):
        self.path = path
        self.line: int | None = None
        self.stopped = False
        self.tallies: Counter[str] = Counter()
        self.num_lost_triplets = 0
        self._on_problem = on_problem

    def drop_record(self, reason: str, message: str, *, value: object = "") -> None:
        """Report a record that is left out.

        Raises:
            DataError: problems are not collected.
        """
        self._report(reason, "dropped record", message, value)

    def drop_triplet(self, reason: str, message: str, *, value: object = "") -> None:
        """Report a triplet that is left out of a record that stays.

        Raises:
            DataError: problems are not collected.
        """
        self.num_lost_triplets += 1
        self._report(reason, "dropped triplet", message, value)

    def change(self, reason: str, message: str, *, value: object = "") -> None:
        """Report something that was changed without losing what was meant."""
        if self._on_problem is not None:
            self._report(reason, "changed", message, value)

    def _report(self, reason: str, action: Action, message: str, value: object) -> None:
        if self._on_problem is None:
            raise DataError(message, path=self.path, line=self.line)
        text = value if isinstance(value, str) else shorten(value, limit=200)
        self._on_problem(
            Problem(reason, action, message, str(self.path), self.line, shorten_text(text))
        )


def shorten(value: object, *, limit: int = 80) -> str:
    """`repr(value)`, cut to about `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def shorten_text(text: str, *, limit: int = 200) -> str:
    """The text itself, cut to about `limit` characters; lone surrogates become escapes."""
    text = text if len(text) <= limit else f"{text[: limit - 1]}…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
