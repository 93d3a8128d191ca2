"""Whether one prediction file is better than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tripletune.evaluation.bootstrap import Difference, compare_scores
from tripletune.evaluation.columns import FloatArray
from tripletune.evaluation.counts import Counts
from tripletune.evaluation.matching import TextCounts
from tripletune.evaluation.scoring import Evaluation, Settings, evaluate_tables
from tripletune.evaluation.table import NameIndex, TripletTable, build_table, read_tables
from tripletune.schema import Example, Extraction

__all__ = ["Comparison", "compare", "compare_files"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Systems A and B on the same gold texts.

    Attributes:
        first: The evaluation of A.
        second: The evaluation of B.
        differences: F1 of B minus F1 of A by rule, with interval and p-value.
        num_better: Texts on which B has a higher strict F1 than A.
        num_worse: Texts on which B has a lower strict F1 than A.
        num_texts: Texts compared.
    """

    first: Evaluation = field(repr=False)
    second: Evaluation = field(repr=False)
    differences: dict[str, Difference]
    num_better: int
    num_worse: int
    num_texts: int

    def find_changed_relations(self) -> list[tuple[str, Counts, Counts]]:
        """(relation, counts of A, counts of B) where F1 differs, the largest change first."""
        changed = []
        for name in self.first.by_relation.keys() | self.second.by_relation.keys():
            first = self.first.by_relation.get(name, Counts())
            second = self.second.by_relation.get(name, Counts())
            change = abs((second.f1 or 0.0) - (first.f1 or 0.0))
            if change:
                changed.append((change, name, first, second))
        return [
            (name, a, b) for _, name, a, b in sorted(changed, key=lambda row: (-row[0], row[1]))
        ]

    def to_dict(self) -> dict[str, Any]:
        """The scores of both and their differences as JSON values."""
        return {
            "num_texts": self.num_texts,
            "num_better": self.num_better,
            "num_worse": self.num_worse,
            "rules": {
                rule: {
                    "a": self.first.scores[rule].to_dict(),
                    "b": self.second.scores[rule].to_dict(),
                    "difference": difference.to_dict(),
                }
                for rule, difference in self.differences.items()
            },
            "changed_relations": [
                {"relation": name, "a": first.to_dict(), "b": second.to_dict()}
                for name, first, second in self.find_changed_relations()
            ],
        }


def compare(
    first: Sequence[Example | Extraction],
    second: Sequence[Example | Extraction],
    *,
    gold: Sequence[Example],
    settings: Settings | None = None,
) -> Comparison:
    """The comparison of two lists of predictions with the gold records.

    Args:
        first: The answers of system A.
        second: The answers of system B.
        gold: The right answers.
        settings: Aliases, schema and the settings of the tests.
    """
    names = NameIndex()
    gold_table = build_table(gold, names)
    tables = (build_table(first, names), build_table(second, names))
    return _compare_tables(gold_table, tables, names, settings=settings or Settings())


def compare_files(
    first_path: str | Path,
    second_path: str | Path,
    *,
    gold_path: str | Path,
    settings: Settings | None = None,
) -> Comparison:
    """The comparison of two prediction files with a gold file, all of canonical JSON lines.

    Raises:
        DataError: a file cannot be read or a line is no canonical record.
    """
    names = NameIndex()
    gold, *tables = read_tables((gold_path, first_path, second_path), names)
    return _compare_tables(gold, (tables[0], tables[1]), names, settings=settings or Settings())


def _compare_tables(
    gold: TripletTable,
    tables: tuple[TripletTable, TripletTable],
    names: NameIndex,
    *,
    settings: Settings,
) -> Comparison:
    first, second = (evaluate_tables(gold, table, names, settings=settings) for table in tables)
    num_gold = len(gold.texts)
    aligned = {
        rule: _align_texts(first.text_counts[rule], second.text_counts[rule], num_gold)
        for rule in first.text_counts
    }
    strict_a, strict_b = (_score_texts(counts) for counts in aligned["strict"])
    return Comparison(
        first=first,
        second=second,
        differences={
            rule: compare_scores(
                *counts,
                num_resamples=settings.num_resamples,
                seed=settings.seed,
                level=settings.level,
            )
            for rule, counts in aligned.items()
        },
        num_better=int((strict_b > strict_a).sum()),
        num_worse=int((strict_b < strict_a).sum()),
        num_texts=len(strict_a),
    )


def _align_texts(
    first: TextCounts, second: TextCounts, num_gold: int
) -> tuple[TextCounts, TextCounts]:
    """Both over the gold texts, then those only in A, then those only in B."""
    only_first, only_second = len(first.gold) - num_gold, len(second.gold) - num_gold
    return (
        _insert_empty(first, len(first.gold), only_second),
        _insert_empty(second, num_gold, only_first),
    )


def _insert_empty(counts: TextCounts, place: int, num_texts: int) -> TextCounts:
    """The counts with some texts without any triplet inserted."""
    nothing = np.zeros(num_texts, dtype=np.int64)
    return TextCounts(
        gold=np.insert(counts.gold, place, nothing),
        predicted=np.insert(counts.predicted, place, nothing),
        correct=np.insert(counts.correct.astype(np.float64), place, nothing),
        found=None if counts.found is None else np.insert(counts.found, place, nothing),
    )


def _score_texts(counts: TextCounts) -> FloatArray:
    """(number of texts,) F1 of each text; 1 where there is nothing and nothing was predicted."""
    total = counts.gold + counts.predicted
    return np.where(total > 0, 2 * counts.correct / np.maximum(total, 1), 1.0)
