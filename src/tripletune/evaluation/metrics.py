"""Counts broken down by relation, by number of triplets and by text length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tripletune.evaluation.columns import IntArray
from tripletune.evaluation.counts import Counts
from tripletune.evaluation.matching import TextCounts, TripletSet

__all__ = [
    "Bucket",
    "Macro",
    "compute_macro",
    "count_by_length",
    "count_by_num_triplets",
    "count_by_relation",
]

_LENGTH_LIMITS = (25, 50, 100, 200)
_LARGEST_NUM_TRIPLETS = 5


@dataclass(frozen=True, slots=True)
class Macro:
    """Scores of the relations averaged, each relation weighing the same.

    Attributes:
        precision: Mean over the relations that were predicted; None when none was.
        recall: Mean over all gold relations; None when there is none.
        f1: Mean over all gold relations; None when there is none.
        num_relations: How many relations have a gold triplet.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    num_relations: int

    def to_dict(self) -> dict[str, Any]:
        """The three means and the number of relations."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "num_relations": self.num_relations,
        }


@dataclass(frozen=True, slots=True)
class Bucket:
    """The texts of one kind.

    Attributes:
        label: What they have in common, such as "26-50".
        num_texts: How many there are.
        counts: Their triplets.
    """

    label: str
    num_texts: int
    counts: Counts

    def to_dict(self) -> dict[str, Any]:
        """The label, the number of texts and the scores."""
        return {"label": self.label, "num_texts": self.num_texts, **self.counts.to_dict()}


def count_by_relation(triplets: TripletSet, names: Sequence[str]) -> dict[str, Counts]:
    """Strict counts of each relation on either side, the most frequent gold relation first.

    Args:
        triplets: Distinct triplets without further object slots.
        names: The name of each number.
    """
    numbers, ranks = np.unique(triplets.relations, return_inverse=True)
    both = triplets.in_gold & triplets.in_predicted
    gold, predicted, correct = (
        np.bincount(ranks[mask], minlength=len(numbers)).tolist()
        for mask in (triplets.in_gold, triplets.in_predicted, both)
    )
    counted = {
        names[number]: Counts(*counts)
        for number, *counts in zip(numbers.tolist(), gold, predicted, correct, strict=True)
    }
    return dict(
        sorted(counted.items(), key=lambda item: (-item[1].num_gold, -item[1].num_predicted, item))
    )


def compute_macro(by_relation: dict[str, Counts]) -> Macro:
    """The mean scores of the relations that have a gold triplet.

    A relation that occurs only in the predictions lowers precision in the micro average; here it
    is left out, so that two models are averaged over the same relations.
    """
    counted = [counts for counts in by_relation.values() if counts.num_gold]
    return Macro(
        precision=_mean([counts.precision for counts in counted]),
        recall=_mean([counts.recall for counts in counted]),
        f1=_mean([counts.f1 for counts in counted]),
        num_relations=len(counted),
    )


def count_by_num_triplets(counts: TextCounts) -> list[Bucket]:
    """Texts with 0, 1, 2, 3, 4 and with 5 or more gold triplets; kinds without a text are left out.

    Args:
        counts: The counts of every text.
    """
    kinds = np.minimum(counts.gold, _LARGEST_NUM_TRIPLETS)
    labels = [*map(str, range(_LARGEST_NUM_TRIPLETS)), f"{_LARGEST_NUM_TRIPLETS}+"]
    return _count_kinds(counts, kinds, labels)


def count_by_length(counts: TextCounts, texts: Sequence[str]) -> list[Bucket]:
    """Texts of up to 25, 50, 100, 200 and of more characters; kinds without a text are left out.

    Args:
        counts: The counts of every text.
        texts: The texts.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    kinds = np.searchsorted(_LENGTH_LIMITS, lengths)
    starts = [1, *(limit + 1 for limit in _LENGTH_LIMITS)]
    labels = [f"{start}-{end}" for start, end in zip(starts, _LENGTH_LIMITS, strict=False)]
    return _count_kinds(counts, kinds.astype(np.int64), [*labels, f"{starts[-1]}+"])


def _count_kinds(counts: TextCounts, kinds: IntArray, labels: Sequence[str]) -> list[Bucket]:
    buckets = []
    for kind, label in enumerate(labels):
        mask = kinds == kind
        num_texts = int(mask.sum())
        if num_texts:
            buckets.append(Bucket(label, num_texts, counts.total(mask)))
    return buckets


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
