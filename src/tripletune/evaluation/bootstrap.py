"""How sure a score is, and whether a difference between two is real.

Intervals resample the texts with replacement (percentile bootstrap). The paired test exchanges the
two systems' answers text by text at random (approximate randomisation) and counts how often chance
alone makes a difference as large. Texts with equal counts are interchangeable, so a resample is
drawn as one multinomial over the distinct counts: the same distribution, at a cost that does not
depend on the number of texts.

Source: Efron 1979; Noreen 1989; Yeh 2000, "More accurate tests for the statistical significance of
result differences".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tripletune.errors import ConfigError
from tripletune.evaluation.columns import FloatArray, IntArray, pack_columns
from tripletune.evaluation.matching import TextCounts

__all__ = [
    "NUM_RESAMPLES",
    "Difference",
    "Interval",
    "ScoreIntervals",
    "bootstrap_scores",
    "compare_scores",
]

NUM_RESAMPLES = 2000
"""Resamples drawn unless another number is asked for."""

_SMALLEST_NUM_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        level: The share of resamples inside, such as 0.95.
    """

    low: float
    high: float
    level: float

    def to_dict(self) -> dict[str, float]:
        """Both ends and the level."""
        return {"low": self.low, "high": self.high, "level": self.level}


@dataclass(frozen=True, slots=True)
class ScoreIntervals:
    """The intervals of the three scores; None where a score is undefined."""

    precision: Interval | None
    recall: Interval | None
    f1: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """The three intervals."""
        return {
            name: None if interval is None else interval.to_dict()
            for name, interval in (
                ("precision", self.precision),
                ("recall", self.recall),
                ("f1", self.f1),
            )
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """The F1 of system B less that of system A, on the same texts.

    Attributes:
        value: F1 of B minus F1 of A; None when either is undefined.
        interval: Its confidence interval.
        p_value: How often random exchange makes a difference at least as large; two-sided.
    """

    value: float | None
    interval: Interval | None
    p_value: float | None

    @property
    def is_significant(self) -> bool:
        """Whether chance makes such a difference in fewer than one in twenty cases."""
        return self.p_value is not None and self.p_value < 0.05

    def to_dict(self) -> dict[str, Any]:
        """The difference, its interval and the p-value."""
        return {
            "value": self.value,
            "interval": None if self.interval is None else self.interval.to_dict(),
            "p_value": self.p_value,
            "is_significant": self.is_significant,
        }


def bootstrap_scores(
    counts: TextCounts,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 42,
    level: float = 0.95,
) -> ScoreIntervals:
    """Confidence intervals of precision, recall and F1 over texts.

    A resample in which a score is undefined does not count for that score.

    Args:
        counts: The counts of every text.
        num_resamples: How many times the texts are drawn, at least 100.
        seed: Starts the random numbers; the same seed gives the same intervals.
        level: The share of resamples inside an interval, between 0 and 1.

    Raises:
        ConfigError: `num_resamples` or `level` is out of range.
    """
    _check_settings(num_resamples, level)
    values, num_texts = _group_texts(_stack_counts(counts))
    sums = _resample(values, num_texts, num_resamples=num_resamples, seed=seed)
    precision, recall, f1 = _derive_scores(sums)
    return ScoreIntervals(
        precision=_find_interval(precision, level),
        recall=_find_interval(recall, level),
        f1=_find_interval(f1, level),
    )


def compare_scores(
    first: TextCounts,
    second: TextCounts,
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 42,
    level: float = 0.95,
) -> Difference:
    """The difference in F1 of two systems on the same texts, second minus first.

    Args:
        first: The counts of every text under system A.
        second: The counts of the same texts, in the same order, under system B.
        num_resamples: How many resamples and how many random exchanges, at least 100.
        seed: Starts the random numbers.
        level: The share of resamples inside the interval.

    Raises:
        ConfigError: a setting is out of range, or the numbers of texts differ.
    """
    _check_settings(num_resamples, level)
    if len(first.gold) != len(second.gold):
        raise ConfigError(
            f"comparison: {len(first.gold)} and {len(second.gold)} texts; need the same texts"
        )
    values, num_texts = _group_texts(np.hstack([_stack_counts(first), _stack_counts(second)]))
    width = values.shape[1] // 2
    observed = num_texts @ values
    value = float(_compute_f1(observed[width:]) - _compute_f1(observed[:width]))
    if np.isnan(value):
        return Difference(None, None, None)
    sums = _resample(values, num_texts, num_resamples=num_resamples, seed=seed)
    differences = _compute_f1(sums[:, width:]) - _compute_f1(sums[:, :width])
    exchanged = np.random.default_rng(seed).binomial(
        num_texts.astype(np.int64), 0.5, size=(num_resamples, len(num_texts))
    )
    # Exchanging a text moves B's counts to A and back, so the sum of both stays what it is.
    shifts = exchanged @ (values[:, width:] - values[:, :width])
    by_chance = _compute_f1(observed[width:] - shifts) - _compute_f1(observed[:width] + shifts)
    # The tolerance lets a difference that differs in rounding only count as equal.
    num_as_large = int((np.abs(by_chance) >= abs(value) - 1e-12).sum())
    return Difference(
        value=value,
        interval=_find_interval(differences, level),
        p_value=(num_as_large + 1) / (num_resamples + 1),
    )


def _check_settings(num_resamples: int, level: float) -> None:
    if num_resamples < _SMALLEST_NUM_RESAMPLES:
        raise ConfigError(
            f"num_resamples: {num_resamples!r} is too few; need at least {_SMALLEST_NUM_RESAMPLES}"
        )
    if not 0 < level < 1:
        raise ConfigError(f"level: {level!r} is not between 0 and 1; 0.95 is usual")


def _stack_counts(counts: TextCounts) -> FloatArray:
    """(number of texts, 4): gold, predicted, correct, found."""
    found = counts.correct if counts.found is None else counts.found
    return np.column_stack([counts.gold, counts.predicted, counts.correct, found]).astype(
        np.float64
    )


def _group_texts(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The distinct rows, and how many texts have each."""
    # Halves of the partial rule become whole numbers.
    columns: Sequence[IntArray] = [*(values * 2).astype(np.int64).T]
    _, first, num_texts = np.unique(pack_columns(columns), return_index=True, return_counts=True)
    return values[first], num_texts.astype(np.float64)


def _resample(
    values: FloatArray, num_texts: FloatArray, *, num_resamples: int, seed: int
) -> FloatArray:
    """(number of resamples, number of columns) sums over as many texts as there are."""
    total = int(num_texts.sum())
    if not total:
        return np.zeros((num_resamples, values.shape[1]))
    draws = np.random.default_rng(seed).multinomial(total, num_texts / total, size=num_resamples)
    return draws @ values


def _derive_scores(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Precision, recall and F1 of sums (…, 4); NaN where undefined."""
    gold, predicted, correct, found = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = correct / predicted, found / gold
        harmonic = 2 * precision * recall / (precision + recall)
    has_any = (gold > 0) | (predicted > 0)
    f1 = np.where(has_any, np.nan_to_num(harmonic, nan=0.0), np.nan)
    return precision, recall, f1


def _compute_f1(sums: FloatArray) -> FloatArray:
    return _derive_scores(sums)[2]


def _find_interval(scores: FloatArray, level: float) -> Interval | None:
    defined = scores[~np.isnan(scores)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)
