from __future__ import annotations

import numpy as np
import pytest

from tripletune.errors import ConfigError
from tripletune.evaluation.calibration import (
    ReliabilityBin,
    ThresholdPoint,
    compute_calibration,
)
from tripletune.evaluation.counts import Counts

CONFIDENCES = np.array([0.1, 0.3, np.nan, 0.5, 1.0])
IS_CORRECT = np.array([False, True, True, False, True])


def test_compute_calibration_agrees_with_hand_counts():
    calibration = compute_calibration(CONFIDENCES, IS_CORRECT, num_gold=4, num_bins=2)
    assert calibration.bins == (
        ReliabilityBin(0.0, 0.5, 2, pytest.approx(0.2), 0.5),
        # 0.5 belongs to the upper bin, and 1.0 to the last one.
        ReliabilityBin(0.5, 1.0, 2, 0.75, 0.5),
    )
    # (2 * |0.2 - 0.5| + 2 * |0.75 - 0.5|) / 4
    assert calibration.expected_error == pytest.approx(0.275)
    assert (calibration.num_triplets, calibration.num_without) == (4, 1)


def test_compute_calibration_keeps_triplets_from_the_threshold_on():
    calibration = compute_calibration(CONFIDENCES, IS_CORRECT, num_gold=4)
    by_threshold = {point.threshold: point.counts for point in calibration.thresholds}
    assert len(by_threshold) == 20
    assert by_threshold[0.0] == Counts(4, 4, 2)
    assert by_threshold[0.3] == Counts(4, 3, 2)
    assert by_threshold[0.5] == Counts(4, 2, 1)
    assert by_threshold[0.95] == Counts(4, 1, 1)


def test_best_threshold_is_the_lowest_with_the_highest_f1():
    # F1 2/4 = 0.5 of all four, then 4/7 without the worst (from 0.15 on) and 2/6 from 0.35 on.
    best = compute_calibration(CONFIDENCES, IS_CORRECT, num_gold=4).best
    assert best == ThresholdPoint(0.15, Counts(4, 3, 2))


def test_compute_calibration_of_an_empty_bin_is_undefined():
    calibration = compute_calibration(np.array([0.9]), np.array([True]), num_gold=1, num_bins=2)
    assert calibration.bins[0] == ReliabilityBin(0.0, 0.5, 0, None, None)
    assert calibration.expected_error == pytest.approx(0.1)


def test_compute_calibration_without_confidences_is_none():
    assert compute_calibration(np.array([np.nan]), np.array([True]), num_gold=1) is None
    assert compute_calibration(np.array([]), np.array([], dtype=bool), num_gold=1) is None


def test_compute_calibration_rejects_no_bins():
    with pytest.raises(ConfigError, match="num_bins: 0 is too few"):
        compute_calibration(CONFIDENCES, IS_CORRECT, num_gold=4, num_bins=0)


def test_calibration_to_dict_is_json():
    record = compute_calibration(CONFIDENCES, IS_CORRECT, num_gold=4, num_bins=2).to_dict()
    assert record["bins"][1] == {
        "low": 0.5,
        "high": 1.0,
        "num_triplets": 2,
        "mean_confidence": 0.75,
        "accuracy": 0.5,
    }
    assert record["thresholds"][10] == {
        "threshold": 0.5,
        "precision": 0.5,
        "recall": 0.25,
        "f1": pytest.approx(1 / 3),
        "num_gold": 4,
        "num_predicted": 2,
        "num_correct": 1,
    }
