"""Whether a confidence of 0.8 means that four in five are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tripletune.errors import ConfigError
from tripletune.evaluation.columns import BoolArray, FloatArray
from tripletune.evaluation.counts import Counts

__all__ = ["Calibration", "ReliabilityBin", "ThresholdPoint", "compute_calibration"]

_NUM_THRESHOLDS = 20


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predicted triplets of similar confidence.

    Attributes:
        low: Lower end of the confidence, inclusive.
        high: Upper end, exclusive except for the last bin.
        num_triplets: How many there are.
        mean_confidence: What the model said; None without triplets.
        accuracy: The share that is right; None without triplets.
    """

    low: float
    high: float
    num_triplets: int
    mean_confidence: float | None
    accuracy: float | None

    def to_dict(self) -> dict[str, Any]:
        """Ends, number, mean confidence and accuracy."""
        return {
            "low": self.low,
            "high": self.high,
            "num_triplets": self.num_triplets,
            "mean_confidence": self.mean_confidence,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """The scores when only triplets of at least this confidence are kept."""

    threshold: float
    counts: Counts

    def to_dict(self) -> dict[str, Any]:
        """The threshold and the scores."""
        return {"threshold": self.threshold, **self.counts.to_dict()}


@dataclass(frozen=True, slots=True)
class Calibration:
    """How confidence and correctness go together.

    Attributes:
        expected_error: Expected calibration error: the mean distance of confidence and accuracy
            over the bins, weighted by their triplets.
        bins: The reliability bins, all of the same width.
        thresholds: Scores at rising thresholds.
        num_triplets: Predicted triplets with a confidence.
        num_without: Predicted triplets without one; they take no part.
    """

    expected_error: float
    bins: tuple[ReliabilityBin, ...]
    thresholds: tuple[ThresholdPoint, ...]
    num_triplets: int
    num_without: int

    @property
    def best(self) -> ThresholdPoint:
        """The lowest threshold with the highest F1."""
        return max(self.thresholds, key=lambda point: point.counts.f1 or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "expected_error": self.expected_error,
            "num_triplets": self.num_triplets,
            "num_without": self.num_without,
            "bins": [bin_.to_dict() for bin_ in self.bins],
            "thresholds": [point.to_dict() for point in self.thresholds],
        }


def compute_calibration(
    confidences: FloatArray, is_correct: BoolArray, *, num_gold: int, num_bins: int = 10
) -> Calibration | None:
    """The calibration of predicted triplets, or None when none has a confidence.

    Args:
        confidences: (number of predicted triplets,) from 0 to 1, NaN where unknown.
        is_correct: (number of predicted triplets,) whether each is right.
        num_gold: Gold triplets altogether, for the recall at a threshold.
        num_bins: Reliability bins, at least 1.

    Raises:
        ConfigError: `num_bins` is below 1.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins: {num_bins!r} is too few; need at least 1")
    known = ~np.isnan(confidences)
    values, right = confidences[known], is_correct[known]
    if not len(values):
        return None
    kinds = np.minimum((values * num_bins).astype(np.int64), num_bins - 1)
    bins = tuple(
        _make_bin(values[kinds == kind], right[kinds == kind], kind=kind, num_bins=num_bins)
        for kind in range(num_bins)
    )
    expected_error = sum(
        bin_.num_triplets / len(values) * abs(bin_.mean_confidence - bin_.accuracy)
        for bin_ in bins
        if bin_.mean_confidence is not None and bin_.accuracy is not None
    )
    thresholds = []
    for step in range(_NUM_THRESHOLDS):
        kept = values >= step / _NUM_THRESHOLDS
        counts = Counts(num_gold, int(kept.sum()), int((kept & right).sum()))
        thresholds.append(ThresholdPoint(step / _NUM_THRESHOLDS, counts))
    return Calibration(
        expected_error=float(expected_error),
        bins=bins,
        thresholds=tuple(thresholds),
        num_triplets=len(values),
        num_without=int(len(known) - len(values)),
    )


def _make_bin(values: FloatArray, right: BoolArray, *, kind: int, num_bins: int) -> ReliabilityBin:
    return ReliabilityBin(
        low=kind / num_bins,
        high=(kind + 1) / num_bins,
        num_triplets=len(values),
        mean_confidence=float(values.mean()) if len(values) else None,
        accuracy=float(right.mean()) if len(values) else None,
    )
