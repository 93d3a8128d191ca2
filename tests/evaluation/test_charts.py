from __future__ import annotations

import numpy as np
import pytest

from tripletune.evaluation.calibration import compute_calibration
from tripletune.evaluation.charts import Plot, make_reliability_points, make_threshold_lines

PLOT = Plot(size=100.0, left=10.0, top=5.0)


def test_plot_puts_the_origin_at_the_lower_left():
    assert (PLOT.x(0), PLOT.y(0)) == (10.0, 105.0)
    assert (PLOT.x(1), PLOT.y(1)) == (110.0, 5.0)


def calibrate():
    return compute_calibration(
        np.array([0.25, 0.25, 0.25, 0.9]), np.array([False, False, True, True]), num_gold=4
    )


def test_make_reliability_points_has_a_dot_for_each_filled_bin():
    first, second = make_reliability_points(calibrate(), PLOT)
    assert (first.x, first.y) == (35.0, pytest.approx(105 - 100 / 3, abs=0.01))
    assert (second.x, second.y) == (100.0, 5.0)
    assert first.radius > second.radius
    assert first.label == "0.2–0.3: 置信度 0.250, 正确率 0.333, n = 3"


def test_make_threshold_lines_leave_out_undefined_scores():
    lines = make_threshold_lines(calibrate(), PLOT)
    # From 0.95 on nothing is kept: precision is undefined, recall and F1 are 0.
    assert [len(lines[name].split()) for name in ("precision", "recall", "f1")] == [19, 20, 20]
    assert lines["recall"].split()[0] == "10.0,55.0"
    assert lines["recall"].split()[-1] == "105.0,105.0"
