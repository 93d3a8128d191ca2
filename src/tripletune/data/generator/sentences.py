"""Sentences with known triplets: facts, clauses and what stands around them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from json.encoder import encode_basestring as quote

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.clauses import ClauseWriter, Fact, Mention
from tripletune.data.generator.domain import Domain, Phrasings
from tripletune.data.generator.names import NAME_KINDS, NameSource, Pool
from tripletune.data.generator.surroundings import Surroundings
from tripletune.data.generator.world import build_world
from tripletune.errors import ConfigError
from tripletune.schema import Example, Triplet

__all__ = [
    "DIFFICULTIES",
    "MAX_TRIPLETS",
    "Difficulty",
    "Sentence",
    "SentenceGenerator",
    "build_example",
    "render_line",
    "with_max_triplets",
]

MAX_TRIPLETS = 8
# A small table of facts may not have as many as a sentence wants; then it gets what there is.
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard the sentences are. Rates are shares from 0 to 1.

    Attributes:
        num_triplets: Relative weight of 0, 1, 2, ... triplets in a sentence, at most up to 8.
        list_rate: How often a relation with several objects lists them (`A、B和C`).
        nested_rate: How often an object is the subject of a further fact.
        overlap_rate: How often facts share an object or one pair has two relations.
        pronoun_rate: How often facts about one subject go on with a pronoun.
        opener_rate: How often words stand before the facts (`据介绍，`).
        closer_rate: How often words follow them.
        distractor_rate: How many of those openers and closers mention an entity of no fact.
        negation_rate: How often a stated fact comes with one that is denied.
        odd_names: Share of names made of arbitrary common characters.

    Raises:
        ConfigError: a rate is outside 0 to 1, or the weights are empty, negative or too many.
    """

    num_triplets: tuple[float, ...] = (0.12, 0.36, 0.28, 0.16, 0.08)
    list_rate: float = 0.5
    nested_rate: float = 0.22
    overlap_rate: float = 0.16
    pronoun_rate: float = 0.2
    opener_rate: float = 0.25
    closer_rate: float = 0.1
    distractor_rate: float = 0.4
    negation_rate: float = 0.05
    odd_names: float = 0.0

    def __post_init__(self) -> None:
        weights = self.num_triplets
        if not 0 < len(weights) <= MAX_TRIPLETS + 1 or min(weights) < 0 or sum(weights) <= 0:
            raise ConfigError(
                f"num_triplets: {weights!r} is no list of weights for 0 to {MAX_TRIPLETS} "
                "triplets; "
                "give up to 9 numbers, none negative and not all 0"
            )
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name != "num_triplets" and not 0 <= value <= 1:
                raise ConfigError(f"{name}: {value!r} is not a share from 0 to 1")


DIFFICULTIES = {
    "easy": Difficulty(
        num_triplets=(0.1, 0.6, 0.3),
        list_rate=0.2,
        nested_rate=0.0,
        overlap_rate=0.0,
        pronoun_rate=0.1,
        opener_rate=0.1,
        closer_rate=0.0,
        distractor_rate=0.0,
        negation_rate=0.0,
    ),
    "medium": Difficulty(),
    "hard": Difficulty(
        num_triplets=(0.12, 0.16, 0.16, 0.16, 0.14, 0.1, 0.08, 0.05, 0.03),
        list_rate=0.6,
        nested_rate=0.3,
        overlap_rate=0.25,
        pronoun_rate=0.3,
        opener_rate=0.5,
        closer_rate=0.3,
        distractor_rate=0.7,
        negation_rate=0.12,
        odd_names=0.1,
    ),
}
"""Settings by name."""


def with_max_triplets(difficulty: Difficulty, most: int) -> Difficulty:
    """The same difficulty with at most `most` triplets in a sentence, all counts up to it possible.

    A count that the difficulty leaves out gets half the weight of the one before it.

    Raises:
        ConfigError: the number is not between 0 and 8.
    """
    if not 0 <= most <= MAX_TRIPLETS:
        raise ConfigError(f"max_triplets: {most!r} is not a number from 0 to {MAX_TRIPLETS}")
    weights = list(difficulty.num_triplets[: most + 1])
    while len(weights) <= most:
        weights.append(weights[-1] / 2)
    return replace(difficulty, num_triplets=tuple(weights))


@dataclass(slots=True)
class Sentence:
    """A sentence before it becomes an `Example`.

    Attributes:
        text: The sentence.
        facts: (subject, relation, object), ordered by where subject and then object stand.
        mentions: Every entity named, as (name, name of its type), in no particular order.
    """

    text: str
    facts: list[Fact]
    mentions: list[tuple[str, str]]


class SentenceGenerator:
    """An endless stream of examples, the same for the same arguments.

    Args:
        pool: Which names of open types occur; names of different pools never coincide.
        seed: Seed of the stream.
        difficulty: What the sentences are like.
        domain: Types, relations and phrasings; the built-in ones when not given.
        phrasings: `seen` leaves out the phrasings reserved for validation, `unseen` uses only
            those.

    Example:
        >>> example = next(SentenceGenerator("train", 1))
        >>> all(t.subject in example.text and t.object in example.text for t in example.triplets)
        True
    """

    def __init__(
        self,
        pool: Pool,
        seed: int | str,
        *,
        difficulty: Difficulty | None = None,
        domain: Domain | None = None,
        phrasings: Phrasings = "all",
    ) -> None:
        self.domain = (domain or build_default_domain()).restricted(phrasings)
        difficulty = difficulty or Difficulty()
        stream = random.Random(f"{pool}:{seed}")
        self._random = stream.random
        types = self.domain.types.values()
        self._shared = {t.name: t.shared for t in types if t.names}
        self.names = NameSource(
            pool,
            stream,
            odd_names=difficulty.odd_names,
            lists={t.kind: (t.names, t.shared) for t in types if t.names},
        )
        world = build_world(self.domain, self.names, self._random)
        self._clauses = ClauseWriter(world, self.names, self._random, difficulty)
        self._surroundings = Surroundings(self.domain, world, self.names, self._random, difficulty)
        self._thresholds = _accumulate(difficulty.num_triplets)

    def __iter__(self) -> Iterator[Example]:
        return self

    def __next__(self) -> Example:
        return build_example(self.generate_sentence(), self.domain)

    def generate_sentence(self, num_triplets: int | None = None) -> Sentence:
        """The next sentence.

        Args:
            num_triplets: How many triplets it states; drawn by the difficulty's weights when not
                given. A small table of facts may give fewer.
        """
        count = self._draw_count() if num_triplets is None else num_triplets
        if count == 0:
            mentions: list[Mention] = []
            text = self._surroundings.write_unrelated(self._clauses, mentions)
            return Sentence(text, [], mentions)
        for _ in range(_ATTEMPTS):
            sentence = self._write(count)
            if count == 1 or len({(s, r.name, o) for s, r, o in sentence.facts}) == count:
                return sentence
        sentence.facts = list(dict.fromkeys(sentence.facts))
        return sentence

    def open_names(self, sentence: Sentence) -> Iterator[str]:
        """The names in a sentence that belong to one pool only."""
        types = self.domain.types
        for name, kind in sentence.mentions:
            shared = self._shared.get(kind)
            if shared is None:
                shared = not NAME_KINDS[types[kind].kind if kind in types else kind][1]
            if not shared:
                yield name

    def _write(self, count: int) -> Sentence:
        facts: list[Fact] = []
        mentions: list[Mention] = []
        body = self._clauses.write(count, facts, mentions)
        text = self._surroundings.wrap(body, mentions)
        if count > 1:
            find = text.find
            facts.sort(key=lambda fact: (find(fact[0]), find(fact[2])))
        return Sentence(text, facts, mentions)

    def _draw_count(self) -> int:
        chance = self._random()
        for count, threshold in enumerate(self._thresholds):
            if chance < threshold:
                return count
        return len(self._thresholds) - 1


def build_example(sentence: Sentence, domain: Domain) -> Example:
    """The example that a sentence makes, with types."""
    types = domain.types
    return Example(
        sentence.text,
        tuple(
            Triplet(
                subject,
                relation.name,
                object_,
                subject_type=types[relation.subject_type].label,
                object_type=types[relation.object_type].label,
            )
            for subject, relation, object_ in sentence.facts
        ),
    )


def render_line(sentence: Sentence, domain: Domain) -> str:
    """`build_example(sentence, domain).to_json()`, some times faster."""
    types = domain.types
    triplets = [
        f'{{"subject": {quote(subject)}, "relation": {quote(relation.name)}, '
        f'"object": {quote(object_)}, '
        f'"subject_type": {quote(types[relation.subject_type].label)}, '
        f'"object_type": {quote(types[relation.object_type].label)}}}'
        for subject, relation, object_ in sentence.facts
    ]
    return f'{{"text": {quote(sentence.text)}, "triplets": [{", ".join(triplets)}]}}'


def _accumulate(weights: tuple[float, ...]) -> tuple[float, ...]:
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return tuple(value / total for value in sums)
