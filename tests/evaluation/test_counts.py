from __future__ import annotations

import pytest

from tripletune.errors import DataError
from tripletune.evaluation.counts import Counts


@pytest.mark.parametrize(
    ("counts", "precision", "recall", "f1"),
    [
        (Counts(4, 5, 2), 2 / 5, 2 / 4, 4 / 9),
        (Counts(3, 3, 3), 1.0, 1.0, 1.0),
        (Counts(3, 2, 0), 0.0, 0.0, 0.0),
        (Counts(0, 0, 0), None, None, None),
        (Counts(0, 2, 0), 0.0, None, 0.0),
        (Counts(2, 0, 0), None, 0.0, 0.0),
        (Counts(2, 2, 1.5), 0.75, 0.75, 0.75),
        # Two predictions match one gold triplet: P 2/2, R 1/2, F1 2 * 1 * 0.5 / 1.5.
        (Counts(2, 2, 2, num_found=1), 1.0, 0.5, 2 / 3),
    ],
)
def test_counts_derive_scores(counts, precision, recall, f1):
    assert (counts.precision, counts.recall) == (precision, recall)
    assert counts.f1 == (None if f1 is None else pytest.approx(f1, abs=1e-15))


def test_counts_add():
    assert Counts(1, 2, 1) + Counts(3, 4, 2) == Counts(4, 6, 3)


def test_counts_add_keeps_the_number_found():
    assert Counts(1, 2, 2, num_found=1) + Counts(3, 4, 2) == Counts(4, 6, 4, num_found=3)


def test_counts_to_dict_holds_scores_and_numbers():
    assert Counts(0, 2, 0).to_dict() == {
        "precision": 0.0,
        "recall": None,
        "f1": 0.0,
        "num_gold": 0,
        "num_predicted": 2,
        "num_correct": 0,
    }


def test_counts_reject_more_correct_than_predicted():
    with pytest.raises(DataError, match=r"num_correct 3 is not between 0 and num_predicted 2"):
        Counts(5, 2, 3)


def test_counts_reject_more_found_than_gold():
    with pytest.raises(DataError, match=r"2 gold triplets found is not between 0 and num_gold 1"):
        Counts(1, 2, 2)
