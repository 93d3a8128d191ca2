"""From two files, or two lists of records, to an `Evaluation`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tripletune.evaluation.aliases import Aliases
from tripletune.evaluation.bootstrap import NUM_RESAMPLES, ScoreIntervals, bootstrap_scores
from tripletune.evaluation.calibration import Calibration, compute_calibration
from tripletune.evaluation.columns import FloatArray, IntArray
from tripletune.evaluation.counts import Counts
from tripletune.evaluation.error_classes import ErrorSummary, TripletError, classify_errors
from tripletune.evaluation.matching import (
    RULES,
    TextCounts,
    TripletSet,
    align_tables,
    count_by_rule,
)
from tripletune.evaluation.metrics import (
    Bucket,
    Macro,
    compute_macro,
    count_by_length,
    count_by_num_triplets,
    count_by_relation,
)
from tripletune.evaluation.pairing import Pairing, pair_rows
from tripletune.evaluation.spans import Key, match_partially
from tripletune.evaluation.table import NameIndex, TripletTable, build_table, read_tables
from tripletune.schema import Example, Extraction

__all__ = ["Evaluation", "Settings", "TextResult", "evaluate", "evaluate_files"]


_TEXTS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Settings:
    """How an evaluation is done.

    Attributes:
        aliases: Aliases for the `duie` rule, as `read_aliases` gives them.
        schema: The relations that are allowed; None leaves that unchecked.
        num_resamples: Resamples for the confidence intervals.
        seed: Starts the random numbers of the intervals.
        level: Confidence level of the intervals.
        max_examples: Examples kept of each error class.
        num_worst: How many of the worst texts are kept.
    """

    aliases: Aliases | None = None
    schema: Collection[str] | None = None
    num_resamples: int = NUM_RESAMPLES
    seed: int = 42
    level: float = 0.95
    max_examples: int = 5
    num_worst: int = 12


@dataclass(frozen=True, slots=True)
class TextResult:
    """One text with what was right, missed and wrong in it.

    Attributes:
        text: The text.
        correct: Predicted gold triplets.
        missed: Gold triplets that were not predicted.
        wrong: Predicted triplets that are not gold.
    """

    text: str
    correct: tuple[Key, ...]
    missed: tuple[Key, ...]
    wrong: tuple[Key, ...]

    @property
    def counts(self) -> Counts:
        """The strict counts of this text."""
        correct = len(self.correct)
        return Counts(correct + len(self.missed), correct + len(self.wrong), correct)

    def to_dict(self) -> dict[str, Any]:
        """The text, its F1 and its triplets by kind."""
        record: dict[str, Any] = {"text": self.text, "f1": self.counts.f1}
        for name, keys in (
            ("correct", self.correct),
            ("missed", self.missed),
            ("wrong", self.wrong),
        ):
            record[name] = [
                dict(zip(("subject", "relation", "object"), key, strict=True)) for key in keys
            ]
        return record


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything there is to know about some predictions.

    Attributes:
        scores: Micro counts by rule, in the order of `RULES`.
        intervals: Confidence intervals by rule.
        text_counts: The counts of every text by rule; gold rows first, in their order.
        macro: Strict scores averaged over relations.
        by_relation: Strict counts of each relation.
        by_num_triplets: Strict counts of texts by their number of gold triplets.
        by_length: Strict counts of texts by their length in characters.
        num_texts: Texts on either side.
        num_exact: Texts whose predicted triplets are exactly the gold ones.
        errors: Mistakes by class, with examples and relation confusions.
        calibration: Confidence against correctness; None when nothing has a confidence.
        worst: The texts with the lowest F1, those with most mistakes first.
        pairing: Which rows were paired and which were missing.
        missing_texts: The first few texts without a prediction.
        extra_texts: The first few predicted texts without a gold row.
        has_schema: Whether relations were checked against a schema.
    """

    scores: dict[str, Counts]
    intervals: dict[str, ScoreIntervals]
    text_counts: dict[str, TextCounts] = field(repr=False)
    macro: Macro
    by_relation: dict[str, Counts] = field(repr=False)
    by_num_triplets: list[Bucket] = field(repr=False)
    by_length: list[Bucket] = field(repr=False)
    num_texts: int
    num_exact: int
    errors: ErrorSummary = field(repr=False)
    calibration: Calibration | None = field(repr=False)
    worst: list[TextResult] = field(repr=False)
    pairing: Pairing = field(repr=False)
    missing_texts: tuple[str, ...] = field(repr=False)
    extra_texts: tuple[str, ...] = field(repr=False)
    has_schema: bool

    @property
    def strict(self) -> Counts:
        """Micro counts under the strict rule."""
        return self.scores["strict"]

    @property
    def duie(self) -> Counts:
        """Micro counts under the official DuIE 2.0 rules."""
        return self.scores["duie"]

    @property
    def normalised(self) -> Counts:
        """Micro counts after normalisation."""
        return self.scores["normalised"]

    @property
    def partial(self) -> Counts:
        """Micro counts with half credit for overlapping entities."""
        return self.scores["partial"]

    @property
    def relation_only(self) -> Counts:
        """Micro counts of the relations of each text."""
        return self.scores["relation_only"]

    @property
    def entity_pairs(self) -> Counts:
        """Micro counts of the (subject, object) pairs of each text."""
        return self.scores["entity_pairs"]

    @property
    def exact_match(self) -> float | None:
        """The share of texts that are exactly right, or None without texts."""
        return self.num_exact / self.num_texts if self.num_texts else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, the scores of each rule under its name."""
        record: dict[str, Any] = {
            rule: {**counts.to_dict(), "intervals": self.intervals[rule].to_dict()}
            for rule, counts in self.scores.items()
        }
        record |= {
            "num_texts": self.num_texts,
            "num_exact": self.num_exact,
            "exact_match": self.exact_match,
            "macro": self.macro.to_dict(),
            "by_relation": {name: c.to_dict() for name, c in self.by_relation.items()},
            "by_num_triplets": [bucket.to_dict() for bucket in self.by_num_triplets],
            "by_length": [bucket.to_dict() for bucket in self.by_length],
            "errors": self.errors.to_dict(),
            "schema_checked": self.has_schema,
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "worst": [result.to_dict() for result in self.worst],
            "pairing": {
                **self.pairing.to_dict(),
                "missing_texts": list(self.missing_texts),
                "extra_texts": list(self.extra_texts),
            },
        }
        return record


def evaluate(
    gold: Sequence[Example],
    predicted: Sequence[Example | Extraction],
    *,
    settings: Settings | None = None,
) -> Evaluation:
    """The evaluation of predicted against gold records.

    Args:
        gold: The right answers.
        predicted: The answers to judge, in any order.
        settings: Aliases, schema and how much detail to keep.

    Example:
        >>> from tripletune.schema import Triplet
        >>> gold = [Example("甲在乙", (Triplet("甲", "位于", "乙"),))]
        >>> evaluate(gold, gold).strict.f1
        1.0
    """
    names = NameIndex()
    return evaluate_tables(
        build_table(gold, names), build_table(predicted, names), names, settings=settings
    )


def evaluate_files(
    gold_path: str | Path, predicted_path: str | Path, *, settings: Settings | None = None
) -> Evaluation:
    """The evaluation of two files of canonical JSON lines.

    Raises:
        DataError: a file cannot be read or a line is no canonical record.
    """
    names = NameIndex()
    gold, predicted = read_tables((gold_path, predicted_path), names)
    return evaluate_tables(gold, predicted, names, settings=settings)


def evaluate_tables(
    gold: TripletTable,
    predicted: TripletTable,
    names: NameIndex,
    *,
    settings: Settings | None = None,
) -> Evaluation:
    """The evaluation of two tables that share `names`."""
    settings = settings or Settings()
    pairing = pair_rows(
        gold.ids, gold.texts, predicted_ids=predicted.ids, predicted_texts=predicted.texts
    )
    texts = gold.texts + [predicted.texts[row] for row in pairing.only_predicted]
    triplets = align_tables(gold, predicted, pairing)
    plain = triplets.without_slots()
    counted = count_by_rule(triplets, names, aliases=settings.aliases)
    strict = counted["strict"]
    name_of = list(names)
    problems = {
        int(pairing.predicted_places[row]): found for row, found in predicted.problems.items()
    }
    errors, num_near = _review_texts(
        plain, texts, name_of=name_of, problems=problems, settings=settings
    )
    counted["partial"] = TextCounts(strict.gold, strict.predicted, strict.correct + num_near / 2)
    text_counts = {rule: counted[rule] for rule in RULES}
    by_relation = count_by_relation(plain, name_of)
    return Evaluation(
        scores={rule: counts.total() for rule, counts in text_counts.items()},
        intervals={rule: _bootstrap(counts, settings) for rule, counts in text_counts.items()},
        text_counts=text_counts,
        macro=compute_macro(by_relation),
        by_relation=by_relation,
        by_num_triplets=count_by_num_triplets(strict),
        by_length=count_by_length(strict, texts),
        num_texts=len(texts),
        num_exact=_count_exact(strict),
        errors=errors,
        calibration=_calibrate(plain),
        worst=_find_worst(plain, strict, texts=texts, name_of=name_of, limit=settings.num_worst),
        pairing=pairing,
        missing_texts=tuple(texts[row] for row in pairing.only_gold[: settings.max_examples]),
        extra_texts=tuple(
            predicted.texts[row] for row in pairing.only_predicted[: settings.max_examples]
        ),
        has_schema=settings.schema is not None,
    )


def _bootstrap(counts: TextCounts, settings: Settings) -> ScoreIntervals:
    return bootstrap_scores(
        counts, num_resamples=settings.num_resamples, seed=settings.seed, level=settings.level
    )


def _count_exact(counts: TextCounts) -> int:
    is_exact = (counts.gold == counts.correct) & (counts.predicted == counts.correct)
    return int(is_exact.sum())


def _review_texts(
    plain: TripletSet,
    texts: Sequence[str],
    *,
    name_of: Sequence[str],
    problems: dict[int, tuple[str, ...]],
    settings: Settings,
) -> tuple[ErrorSummary, FloatArray]:
    """The mistakes of all texts, and (number of texts,) how many wrong triplets were near."""
    errors = ErrorSummary(settings.max_examples)
    num_near = np.zeros(len(texts))
    for place, found in sorted(problems.items()):
        unreadable = [TripletError("unparseable", output=problem) for problem in found]
        errors.add(texts[place], unreadable)
    mistaken = np.unique(plain.texts[plain.in_gold != plain.in_predicted])
    for place, (correct, missed, wrong) in _iter_kinds(plain, mistaken, name_of):
        text = texts[place]
        near = match_partially(text, missed, wrong) if missed and wrong else []
        num_near[place] = len(near)
        errors.add(
            text,
            classify_errors(
                text,
                gold=correct + missed,
                missed=missed,
                wrong=wrong,
                near=near,
                schema=settings.schema,
            ),
        )
    return errors, num_near


def _iter_kinds(
    plain: TripletSet, places: IntArray, name_of: Sequence[str]
) -> Iterator[tuple[int, tuple[list[Key], list[Key], list[Key]]]]:
    """Each of some texts, ascending, with its correct, its missed and its wrong triplets."""
    names = np.array(name_of, dtype=np.object_)
    for part in np.array_split(places, len(places) // _TEXTS_AT_ONCE + 1):
        if not len(part):
            continue
        first, end = np.searchsorted(plain.texts, (part[0], part[-1] + 1))
        rows = first + np.flatnonzero(np.isin(plain.texts[first:end], part))
        kinds = np.where(plain.in_predicted[rows], np.where(plain.in_gold[rows], 0, 2), 1)
        kinds += 3 * plain.texts[rows]
        order = np.argsort(kinds, kind="stable")
        rows = rows[order]
        keys = list(
            zip(
                names[plain.subjects[rows]].tolist(),
                names[plain.relations[rows]].tolist(),
                names[plain.objects[rows]].tolist(),
                strict=True,
            )
        )
        starts = np.searchsorted(kinds[order], 3 * part[:, None] + np.arange(4))
        for place, (start, middle, late, stop) in zip(part.tolist(), starts.tolist(), strict=True):
            yield place, (keys[start:middle], keys[middle:late], keys[late:stop])


def _calibrate(plain: TripletSet) -> Calibration | None:
    if plain.confidences is None:
        return None
    predicted = plain.in_predicted
    return compute_calibration(
        plain.confidences[predicted],
        plain.in_gold[predicted],
        num_gold=int(plain.in_gold.sum()),
    )


def _find_worst(
    plain: TripletSet,
    strict: TextCounts,
    *,
    texts: Sequence[str],
    name_of: Sequence[str],
    limit: int,
) -> list[TextResult]:
    num_triplets = strict.gold + strict.predicted
    num_mistakes = num_triplets - 2 * strict.correct
    f1 = 2 * strict.correct / np.maximum(num_triplets, 1)
    order = np.lexsort((-num_mistakes, f1))
    worst = order[num_mistakes[order] > 0][:limit]
    results = {
        place: TextResult(texts[place], *map(tuple, kinds))
        for place, kinds in _iter_kinds(plain, np.sort(worst), name_of)
    }
    return [results[place] for place in worst.tolist()]
