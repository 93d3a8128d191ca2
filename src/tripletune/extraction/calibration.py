"""Confidence that means what it says: 0.8 is right four times in five.

The probability that a model gives its own output is too high or too low in a way that validation
data shows. Two corrections, both rising with the raw confidence:

- `temperature`: `sigmoid(logit(p) / T + b)`, two numbers, for any amount of data;
- `isotonic`: the best rising step function (pool adjacent violators), straight lines between the
  steps, for some hundreds of predictions and more.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tripletune.errors import AdapterError, ConfigError, OutputError
from tripletune.schema import Example, Extraction

__all__ = [
    "CALIBRATION_FILE",
    "Calibrator",
    "compute_expected_error",
    "fit_calibrator",
    "judge_confidences",
    "load_calibrator",
    "save_calibrator",
]

CALIBRATION_FILE = "calibration.json"
Method = Literal["temperature", "isotonic"]
_ENOUGH_FOR_ISOTONIC = 300
_FLOOR = 1e-6
_NUM_STEPS = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A rising map from raw to calibrated confidence.

    Attributes:
        method: How it was made.
        points: `temperature`: one pair (1 / T, b); `isotonic`: rising (raw, calibrated) pairs.
        num_triplets: How many predictions it was fitted to.
        error_before: Expected calibration error on them before.
        error_after: And after.
        votes: Of the extraction whose confidences they were.

    Raises:
        ConfigError: the method is unknown or there are no points.
    """

    method: Method
    points: tuple[tuple[float, float], ...]
    num_triplets: int = 0
    error_before: float = 0.0
    error_after: float = 0.0
    votes: int = 1

    def __post_init__(self) -> None:
        if self.method not in ("temperature", "isotonic") or not self.points:
            raise ConfigError(
                f"calibration: method {self.method!r} with {len(self.points)} points; accepted "
                "are 'temperature' and 'isotonic' with at least one"
            )

    def apply(self, confidence: float) -> float:
        """The calibrated confidence, from 0 to 1."""
        return float(self.apply_all(np.array([confidence]))[0])

    def apply_all(self, confidences: Floats) -> Floats:
        """As `apply`, for many."""
        if self.method == "temperature":
            scale, shift = self.points[0]
            return _sigmoid(_logit(confidences) * scale + shift)
        raw, calibrated = np.array(self.points).T
        found: Floats = np.interp(confidences, raw, calibrated)
        return found

    def for_votes(self, votes: int) -> Calibrator | None:
        """Itself; None, with a warning, where confidences of another kind are to be corrected."""
        if self.votes == votes:
            return self
        warnings.warn(
            f"{CALIBRATION_FILE} was fitted with --votes {self.votes}, this is --votes {votes}: "
            f"confidence is left as it is; run tripletune calibrate --votes {votes}",
            stacklevel=3,
        )
        return None

    def to_record(self) -> dict[str, Any]:
        """The JSON object of `calibration.json`."""
        return {
            "method": self.method,
            "points": [list(point) for point in self.points],
            "num_triplets": self.num_triplets,
            "error_before": self.error_before,
            "error_after": self.error_after,
            "votes": self.votes,
        }


def judge_confidences(
    examples: Iterable[Example], extractions: Iterable[Extraction]
) -> tuple[Floats, NDArray[np.bool_], int]:
    """The confidences of predicted triplets (N,), which are gold (N,), and the number of gold ones.

    Args:
        examples: With the gold triplets.
        extractions: One for each example; triplets without confidence are left out.
    """
    confidences: list[float] = []
    is_correct: list[bool] = []
    num_gold = 0
    for example, extraction in zip(examples, extractions, strict=True):
        gold = set(example.triplets)
        num_gold += len(gold)
        for triplet in extraction.triplets:
            if triplet.confidence is not None:
                confidences.append(triplet.confidence)
                is_correct.append(triplet in gold)
    return np.array(confidences, dtype=float), np.array(is_correct, dtype=bool), num_gold


def fit_calibrator(
    confidences: Sequence[float] | Floats,
    is_correct: Sequence[bool] | NDArray[np.bool_],
    *,
    method: Method | None = None,
    votes: int = 1,
) -> Calibrator:
    """The calibrator that fits predictions on validation data.

    Args:
        confidences: Raw confidence of each predicted triplet.
        is_correct: Whether it is right.
        method: None takes isotonic from 300 predictions on, else temperature.
        votes: Of the extraction.

    Raises:
        ConfigError: there are no predictions, or not as many of one as of the other.
    """
    raw, right = np.array(confidences, dtype=np.float64), np.array(is_correct, dtype=np.float64)
    if not len(raw) or len(raw) != len(right):
        raise ConfigError(
            f"calibration: {len(raw)} confidences and {len(right)} judgements; need as many of "
            "both, and at least one: extract from validation data that has gold triplets"
        )
    if method is None:
        method = "isotonic" if len(raw) >= _ENOUGH_FOR_ISOTONIC else "temperature"
    points = _fit_isotonic(raw, right) if method == "isotonic" else (_fit_temperature(raw, right),)
    fitted = Calibrator(method, points)
    return Calibrator(
        method,
        points,
        len(raw),
        compute_expected_error(raw, right),
        compute_expected_error(fitted.apply_all(raw), right),
        votes,
    )


def compute_expected_error(confidences: Floats, is_correct: Floats, *, num_bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighted by their size.

    Source: Guo et al., On Calibration of Modern Neural Networks, section 2.
    """
    kinds = np.minimum((confidences * num_bins).astype(np.int64), num_bins - 1)
    error = 0.0
    for kind in np.unique(kinds):
        inside = kinds == kind
        gap = confidences[inside].mean() - is_correct[inside].mean()
        error += float(abs(gap)) * float(inside.mean())
    return error


def save_calibrator(calibrator: Calibrator, adapter_dir: str | Path) -> Path:
    """Writes `calibration.json` beside the adapter and returns its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(adapter_dir) / CALIBRATION_FILE
    text = json.dumps(calibrator.to_record(), indent=2) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def load_calibrator(adapter_dir: str | Path) -> Calibrator | None:
    """The calibrator of an adapter folder, or None when it has none.

    Raises:
        AdapterError: the file is damaged.
    """
    path = Path(adapter_dir) / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        points = tuple((float(x), float(y)) for x, y in record["points"])
        return Calibrator(
            record["method"],
            points,
            int(record["num_triplets"]),
            float(record["error_before"]),
            float(record["error_after"]),
            int(record.get("votes", 1)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{path}: is not a calibration ({error}); delete it or calibrate again"
        ) from error


def _fit_temperature(raw: Floats, right: Floats) -> tuple[float, float]:
    """Newton's method on the log loss, with targets drawn in from 0 and 1.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, section 2.2.
    """
    num_right = right.sum()
    high, low = (num_right + 1) / (num_right + 2), 1 / (len(right) - num_right + 2)
    target = np.where(right > 0, high, low)
    features = np.stack([_logit(raw), np.ones_like(raw)])  # (2, N)
    weights = np.array([1.0, 0.0])
    for _ in range(_NUM_STEPS):
        predicted = _sigmoid(weights @ features)
        slope = features @ (predicted - target) + 1e-3 * (weights - [1.0, 0.0])
        curve = (features * predicted * (1 - predicted)) @ features.T + 1e-3 * np.eye(2)
        weights = weights - np.linalg.solve(curve, slope)
    return max(float(weights[0]), 0.0), float(weights[1])


def _fit_isotonic(raw: Floats, right: Floats) -> tuple[tuple[float, float], ...]:
    blocks: list[list[float]] = []  # [sum of right, count, sum of raw]
    order = np.argsort(raw, kind="stable")
    for place in order:
        blocks.append([float(right[place]), 1.0, float(raw[place])])
        while len(blocks) > 1 and _mean(blocks[-2]) >= _mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] = [one + other for one, other in zip(blocks[-1], last, strict=True)]
    points = [(block[2] / block[1], _mean(block)) for block in blocks]
    return tuple(point for point, after in pairwise([*points, (2.0, 2.0)]) if point[0] < after[0])


def _mean(block: list[float]) -> float:
    return block[0] / block[1]


def _logit(confidences: Floats) -> Floats:
    inside = np.clip(confidences, _FLOOR, 1 - _FLOOR)
    found: Floats = np.log(inside / (1 - inside))
    return found


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
    return found
