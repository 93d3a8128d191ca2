"""`Counts`: how many triplets there are and how many are right; all scores derive from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tripletune.errors import DataError

__all__ = ["Counts"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of triplets that add with `+`; precision, recall and F1 are derived on demand.

    A score with nothing to measure is `None`: precision without predictions, recall without gold
    triplets, F1 without either. F1 is 0 when only one side has triplets.

    Attributes:
        num_gold: Distinct gold triplets.
        num_predicted: Distinct predicted triplets.
        num_correct: Predicted triplets that are right; a fraction under the partial rule.
        num_found: Gold triplets that were found; None when it equals `num_correct`. The two
            differ only under aliases, where several triplets may match one.

    Raises:
        DataError: a number is negative, or more triplets are right than there are.

    Example:
        >>> Counts(num_gold=4, num_predicted=3, num_correct=2).f1
        0.5714285714285714
        >>> Counts().precision is None
        True
    """

    num_gold: int = 0
    num_predicted: int = 0
    num_correct: int | float = 0
    num_found: int | float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.num_correct <= self.num_predicted:
            raise DataError(
                f"counts: num_correct {self.num_correct!r} is not between 0 and num_predicted "
                f"{self.num_predicted!r}"
            )
        if not 0 <= self.found <= self.num_gold:
            raise DataError(
                f"counts: {self.found!r} gold triplets found is not between 0 and num_gold "
                f"{self.num_gold!r}"
            )

    @property
    def found(self) -> int | float:
        """How many gold triplets were found."""
        return self.num_correct if self.num_found is None else self.num_found

    @property
    def precision(self) -> float | None:
        """The share of predicted triplets that are right, or None without predictions."""
        return self.num_correct / self.num_predicted if self.num_predicted else None

    @property
    def recall(self) -> float | None:
        """The share of gold triplets that were found, or None without gold triplets."""
        return self.found / self.num_gold if self.num_gold else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall, or None without any triplet."""
        if not self.num_gold and not self.num_predicted:
            return None
        precision, recall = self.precision or 0.0, self.recall or 0.0
        if precision + recall == 0:
            return 0.0
        if self.num_found is None:
            return 2 * self.num_correct / (self.num_gold + self.num_predicted)
        return 2 * precision * recall / (precision + recall)

    def __add__(self, other: Counts) -> Counts:
        if self.num_found is None and other.num_found is None:
            found = None
        else:
            found = self.found + other.found
        return Counts(
            self.num_gold + other.num_gold,
            self.num_predicted + other.num_predicted,
            self.num_correct + other.num_correct,
            found,
        )

    def to_dict(self) -> dict[str, Any]:
        """Precision, recall, F1 and the three numbers; undefined scores are None."""
        record: dict[str, Any] = {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "num_gold": self.num_gold,
            "num_predicted": self.num_predicted,
            "num_correct": self.num_correct,
        }
        if self.num_found is not None:
            record["num_found"] = self.num_found
        return record
