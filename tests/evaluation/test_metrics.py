from __future__ import annotations

import numpy as np
import pytest

from tripletune.evaluation.counts import Counts
from tripletune.evaluation.matching import TextCounts
from tripletune.evaluation.metrics import (
    Bucket,
    compute_macro,
    count_by_length,
    count_by_num_triplets,
)
from tripletune.evaluation.scoring import evaluate
from tripletune.schema import Example, Triplet


def text_counts(gold, predicted, correct):
    return TextCounts(*(np.array(column) for column in (gold, predicted, correct)))


def test_count_by_relation_counts_either_side_and_sorts_by_gold():
    gold = [Example("一", (Triplet("甲", "建于", "乙"), Triplet("甲", "位于", "乙")))]
    gold += [Example("二", (Triplet("甲", "位于", "乙"), Triplet("甲", "位于", "丙")))]
    predicted = [
        Example("一", (Triplet("甲", "位于", "乙"), Triplet("甲", "毁于", "乙"))),
        Example("二", (Triplet("丙", "位于", "乙"), Triplet("甲", "位于", "丙"))),
    ]
    by_relation = evaluate(gold, predicted).by_relation
    assert list(by_relation.items()) == [
        ("位于", Counts(3, 3, 2)),
        ("建于", Counts(1, 0, 0)),
        ("毁于", Counts(0, 1, 0)),
    ]


def test_compute_macro_weighs_gold_relations_alike():
    macro = compute_macro(
        {"位于": Counts(4, 4, 2), "建于": Counts(1, 0, 0), "毁于": Counts(0, 3, 0)}
    )
    # Precision: 位于 alone was predicted. Recall: (0.5 + 0) / 2. F1: (0.5 + 0) / 2.
    assert macro.to_dict() == {"precision": 0.5, "recall": 0.25, "f1": 0.25, "num_relations": 2}


def test_compute_macro_without_gold_is_undefined():
    assert compute_macro({"毁于": Counts(0, 3, 0)}).to_dict() == {
        "precision": None,
        "recall": None,
        "f1": None,
        "num_relations": 0,
    }


def test_count_by_num_triplets_groups_texts_by_gold():
    counts = text_counts([0, 1, 1, 5, 9], [2, 1, 0, 5, 3], [0, 1, 0, 4, 3])
    assert count_by_num_triplets(counts) == [
        Bucket("0", 1, Counts(0, 2, 0)),
        Bucket("1", 2, Counts(2, 1, 1)),
        Bucket("5+", 2, Counts(14, 8, 7)),
    ]


@pytest.mark.parametrize(
    ("length", "label"),
    [
        (1, "1-25"),
        (25, "1-25"),
        (26, "26-50"),
        (50, "26-50"),
        (100, "51-100"),
        (200, "101-200"),
        (201, "201+"),
    ],
)
def test_count_by_length_puts_a_text_in_its_bucket(length, label):
    counts = text_counts([2], [3], [1])
    assert count_by_length(counts, ["字" * length]) == [Bucket(label, 1, Counts(2, 3, 1))]
