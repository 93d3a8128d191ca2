from __future__ import annotations

import random

import numpy as np
import pytest

from tripletune.errors import ConfigError
from tripletune.evaluation.bootstrap import (
    Difference,
    Interval,
    ScoreIntervals,
    bootstrap_scores,
    compare_scores,
)
from tripletune.evaluation.matching import TextCounts


def text_counts(gold, predicted, correct, found=None):
    columns = [np.array(column) for column in (gold, predicted, correct)]
    return TextCounts(*columns, found=None if found is None else np.array(found))


def test_bootstrap_scores_of_perfect_texts_are_certain():
    certain = Interval(1.0, 1.0, 0.95)
    perfect = text_counts([2, 1, 3], [2, 1, 3], [2, 1, 3])
    assert bootstrap_scores(perfect) == ScoreIntervals(certain, certain, certain)


def test_bootstrap_scores_of_no_texts_are_undefined():
    assert bootstrap_scores(text_counts([], [], [])) == ScoreIntervals(None, None, None)


def test_bootstrap_scores_without_predictions_leave_precision_undefined():
    zero = Interval(0.0, 0.0, 0.95)
    assert bootstrap_scores(text_counts([1, 2], [0, 0], [0, 0])) == ScoreIntervals(None, zero, zero)


def test_bootstrap_scores_use_the_number_found_for_recall():
    intervals = bootstrap_scores(text_counts([2, 2], [2, 2], [2, 2], found=[1, 1]))
    assert (intervals.precision.low, intervals.recall.high) == (1.0, 0.5)
    assert intervals.f1.low == pytest.approx(2 / 3)


def test_bootstrap_scores_agree_with_drawing_texts_one_by_one():
    rng = random.Random(0)
    rows = [(gold, gold, rng.randint(0, gold)) for gold in rng.choices((1, 2, 3), k=80)]
    drawn = []
    for _ in range(4000):
        sample = rng.choices(rows, k=len(rows))
        drawn.append(sum(row[2] for row in sample) / sum(row[0] for row in sample))
    drawn.sort()
    interval = bootstrap_scores(text_counts(*zip(*rows, strict=True)), num_resamples=4000).f1
    # The standard error of a 2.5 % quantile of 4,000 draws is about 0.002 here.
    assert interval.low == pytest.approx(drawn[100], abs=0.01)
    assert interval.high == pytest.approx(drawn[3900], abs=0.01)


def test_bootstrap_scores_are_the_same_for_the_same_seed():
    counts = text_counts(range(1, 60), range(1, 60), [n // 2 for n in range(1, 60)])
    assert bootstrap_scores(counts, seed=7) == bootstrap_scores(counts, seed=7)
    assert bootstrap_scores(counts, seed=7) != bootstrap_scores(counts, seed=8)


def test_bootstrap_scores_widen_with_the_level():
    counts = text_counts([1] * 50, [1] * 50, [1, 0] * 25)
    narrow, wide = (bootstrap_scores(counts, level=level).f1 for level in (0.5, 0.99))
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_resamples": 99}, "num_resamples: 99 is too few; need at least 100"),
        ({"level": 1.0}, r"level: 1\.0 is not between 0 and 1"),
    ],
)
def test_bootstrap_scores_reject_settings_out_of_range(arguments, message):
    with pytest.raises(ConfigError, match=message):
        bootstrap_scores(text_counts([1], [1], [1]), **arguments)


def test_compare_scores_of_equal_systems_finds_nothing():
    counts = text_counts([1, 2], [1, 2], [1, 0])
    assert compare_scores(counts, counts) == Difference(0.0, Interval(0.0, 0.0, 0.95), 1.0)


def test_compare_scores_agrees_with_counting_all_exchanges():
    # B is right on all five texts, A on none. Of the 32 ways to exchange answers only two (none,
    # all) make a difference as large as 1, so p = 2 / 32.
    wrong, right = text_counts([1] * 5, [1] * 5, [0] * 5), text_counts([1] * 5, [1] * 5, [1] * 5)
    difference = compare_scores(wrong, right, num_resamples=20_000)
    assert (difference.value, difference.interval) == (1.0, Interval(1.0, 1.0, 0.95))
    assert difference.p_value == pytest.approx(2 / 32, abs=0.006)
    assert not difference.is_significant


def test_compare_scores_is_second_minus_first():
    rng = np.random.default_rng(1)
    ones = [1] * 300
    first = text_counts(ones, ones, rng.random(300) < 0.5)
    second = text_counts(ones, ones, rng.random(300) < 0.8)
    difference, mirrored = compare_scores(first, second), compare_scores(second, first)
    assert difference.value == pytest.approx(second.total().f1 - first.total().f1)
    assert mirrored.value == -difference.value
    assert difference.interval.low > 0.15
    assert difference.p_value == 1 / 2001
    assert difference.is_significant


def test_compare_scores_without_triplets_is_undefined():
    empty = text_counts([0], [0], [0])
    assert compare_scores(empty, empty) == Difference(None, None, None)


def test_compare_scores_needs_the_same_texts():
    with pytest.raises(ConfigError, match="1 and 2 texts; need the same texts"):
        compare_scores(text_counts([1], [1], [1]), text_counts([1, 1], [1, 1], [1, 1]))


def test_difference_to_dict_holds_value_interval_and_p():
    assert Difference(0.1, Interval(0.05, 0.15, 0.9), 0.01).to_dict() == {
        "value": 0.1,
        "interval": {"low": 0.05, "high": 0.15, "level": 0.9},
        "p_value": 0.01,
        "is_significant": True,
    }
