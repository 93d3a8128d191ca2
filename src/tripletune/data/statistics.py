"""Figures over a stream of examples, in memory that does not grow with their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from rapidfuzz import fuzz

from tripletune.data.relation_schema import TypePair
from tripletune.schema import Example

__all__ = ["FileStatistics", "PairTable", "compute_quantiles", "find_similar_names"]

_SIMILAR_NAMES = 80.0
_MAX_NAMES = 2000
_MEANINGFUL = frozenset("被不非未拟前后")


@dataclass(slots=True)
class FileStatistics:
    """Figures of one file.

    Attributes:
        path: The file.
        num_examples: Examples read.
        num_triplets: Triplets in them.
        num_empty: Examples without a triplet.
        triplets_per_example: How many examples have how many triplets.
        relations: Triplets of each relation.
        type_pairs: Triplets of each relation and (subject type, object type).
        subject_first: For each relation, triplets whose subject stands before the object.
        object_first: The other way round.
        mutual: For each relation, examples that state it in both directions of one pair.
        text_lengths: How many texts have how many characters.
        prompt_lengths: How many prompts have how many tokens, when a tokenizer was given.
        target_lengths: The same for target texts.
    """

    path: str
    num_examples: int = 0
    num_triplets: int = 0
    num_empty: int = 0
    triplets_per_example: Counter[int] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    type_pairs: Counter[tuple[str, TypePair]] = field(default_factory=Counter)
    subject_first: Counter[str] = field(default_factory=Counter)
    object_first: Counter[str] = field(default_factory=Counter)
    mutual: Counter[str] = field(default_factory=Counter)
    text_lengths: Counter[int] = field(default_factory=Counter)
    prompt_lengths: Counter[int] = field(default_factory=Counter)
    target_lengths: Counter[int] = field(default_factory=Counter)

    def add(self, example: Example) -> None:
        """Count an example."""
        triplets, text = example.triplets, example.text
        self.num_examples += 1
        self.num_triplets += len(triplets)
        self.num_empty += not triplets
        self.triplets_per_example[len(triplets)] += 1
        self.text_lengths[len(text)] += 1
        for triplet in triplets:
            relation = triplet.relation
            self.relations[relation] += 1
            if triplet.subject_type or triplet.object_type:
                types = (triplet.subject_type, triplet.object_type)
                self.type_pairs[(relation, types)] += 1
            place, other = text.find(triplet.subject), text.find(triplet.object)
            if 0 <= place < other:
                self.subject_first[relation] += 1
            elif 0 <= other < place:
                self.object_first[relation] += 1
        if len(triplets) > 1:
            keys = {triplet.key for triplet in triplets}
            for name in {r for s, r, o in keys if s != o and (o, r, s) in keys}:
                self.mutual[name] += 1

    def to_record(self) -> dict[str, Any]:
        """The JSON object of these figures."""
        return {
            "path": self.path,
            "examples": self.num_examples,
            "triplets": self.num_triplets,
            "examples_without_triplet": self.num_empty,
            "share_without_triplet": self.num_empty / max(1, self.num_examples),
            "triplets_per_example": dict(sorted(self.triplets_per_example.items())),
            "relations": dict(self.relations.most_common()),
            "directions": self._build_directions(),
            "text_characters": compute_quantiles(self.text_lengths),
            "prompt_tokens": compute_quantiles(self.prompt_lengths),
            "target_tokens": compute_quantiles(self.target_lengths),
        }

    def _build_directions(self) -> dict[str, dict[str, int]]:
        return {
            name: {
                "subject_first": self.subject_first[name],
                "object_first": self.object_first[name],
                "both_directions": self.mutual[name],
            }
            for name, _ in self.relations.most_common()
        }


class PairTable:
    """Which relations each (subject, object) pair carries, up to `limit` different pairs."""

    def __init__(self, limit: int = 1_000_000):
        self._limit = limit
        self._relations: dict[int, frozenset[str]] = {}
        self._sets: dict[frozenset[str], frozenset[str]] = {}

    def add(self, example: Example) -> None:
        """Take the pairs of an example."""
        table = self._relations
        for triplet in example.triplets:
            key = hash((triplet.subject, triplet.object))
            known = table.get(key)
            if known is None:
                if len(table) >= self._limit:
                    continue
                known = frozenset()
            if triplet.relation not in known:
                # Equal sets are kept once: there are few of them and many pairs.
                grown = known | {triplet.relation}
                table[key] = self._sets.setdefault(grown, grown)

    @property
    def num_pairs(self) -> int:
        """How many different pairs were taken."""
        return len(self._relations)

    @property
    def num_ambiguous(self) -> int:
        """How many of them carry more than one relation."""
        return sum(len(relations) > 1 for relations in self._relations.values())

    def find_confusable(
        self, *, min_share: float = 0.3, min_pairs: int = 5
    ) -> list[tuple[str, str, int, float]]:
        """Relations that hold of the same pairs: (one, other, shared pairs, share), most first.

        The share is that of the rarer relation's pairs.
        """
        alone: Counter[str] = Counter()
        shared: Counter[tuple[str, str]] = Counter()
        for relations in self._relations.values():
            alone.update(relations)
            shared.update(combinations(sorted(relations), 2))
        found = [
            (one, other, number, number / min(alone[one], alone[other]))
            for (one, other), number in shared.items()
            if number >= min_pairs and number >= min_share * min(alone[one], alone[other])
        ]
        return sorted(found, key=lambda item: (-item[3], item[0], item[1]))


def find_similar_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that may mean the same: equal but for case and space, or spelt alike.

    Names that differ by one character of negation, voice or time (收购, 被收购) mean different
    things and are left out. Above 2,000 names only the first 2,000 are compared.
    """
    listed = list(dict.fromkeys(names))[:_MAX_NAMES]
    return [pair for pair in combinations(listed, 2) if _are_alike(*pair)]


def compute_quantiles(lengths: Mapping[int, int]) -> dict[str, float] | None:
    """Minimum, median, 95 and 99 per cent, maximum and mean of a histogram, or None if empty."""
    total = sum(lengths.values())
    if not total:
        return None
    ordered = sorted(lengths.items())
    return {
        "min": ordered[0][0],
        "median": _find_quantile(ordered, 0.5 * total),
        "p95": _find_quantile(ordered, 0.95 * total),
        "p99": _find_quantile(ordered, 0.99 * total),
        "max": ordered[-1][0],
        "mean": sum(length * number for length, number in ordered) / total,
    }


def _find_quantile(ordered: Sequence[tuple[int, int]], rank: float) -> int:
    seen = 0
    for length, number in ordered:
        seen += number
        if seen >= rank:
            return length
    return ordered[-1][0]


def _are_alike(one: str, other: str) -> bool:
    plain = ["".join(name.casefold().split()) for name in (one, other)]
    if plain[0] == plain[1]:
        return True
    short, long = sorted(plain, key=len)
    if any(
        long[:place] + long[place + 1 :] == short
        for place, character in enumerate(long)
        if character in _MEANINGFUL
    ):
        return False
    return fuzz.ratio(*plain) >= _SIMILAR_NAMES
