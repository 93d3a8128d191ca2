"""What makes generated sentences hard, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tripletune.data.generator.domain import Domain
from tripletune.data.generator.sentences import Sentence

__all__ = ["DifficultyReport", "Measures", "measure_sentence"]


class Measures(NamedTuple):
    """What is counted of one sentence.

    Attributes:
        num_triplets: Its triplets.
        num_characters: Its length.
        num_distractors: Entities that take part in no triplet.
        shares_pair: Whether two triplets have the same two entities (EPO).
        shares_entity: Whether two triplets share one entity, but not both (SEO).
        is_nested: Whether an object is the subject of another triplet.
        is_crossing: Whether an object stands before its subject.
        has_pronoun: Whether a pronoun of a subject's type stands in it.
        distance: Characters between subject and object, the mean over its triplets.
        relations: Relation names of its triplets.
    """

    num_triplets: int
    num_characters: int
    num_distractors: int
    shares_pair: bool
    shares_entity: bool
    is_nested: bool
    is_crossing: bool
    has_pronoun: bool
    distance: float
    relations: tuple[str, ...]


def measure_sentence(sentence: Sentence, domain: Domain) -> Measures:
    """What the report counts of a sentence."""
    text, facts = sentence.text, sentence.facts
    num_characters, num_entities = len(text), len({name for name, _ in sentence.mentions})
    if not facts:
        return Measures(0, num_characters, num_entities, False, False, False, False, False, 0.0, ())
    subjects = {fact[0] for fact in facts}
    objects = {fact[2] for fact in facts}
    num_in_facts = len(subjects | objects)
    num_pairs = len({(fact[0], fact[2]) for fact in facts}) if len(facts) > 1 else 1
    distance, crossing = 0, False
    for subject, _, object_ in facts:
        start, end = text.find(subject), text.find(object_)
        crossing = crossing or end < start
        distance += abs(end - start)
    pronouns = [word for fact in facts for word in domain.types[fact[1].subject_type].pronouns]
    return Measures(
        num_triplets=len(facts),
        num_characters=num_characters,
        num_distractors=num_entities - num_in_facts,
        shares_pair=num_pairs < len(facts),
        # Pairs that share nothing have twice as many entities as there are pairs.
        shares_entity=num_in_facts < 2 * num_pairs,
        is_nested=len(facts) > 1 and not subjects.isdisjoint(objects),
        is_crossing=crossing,
        has_pronoun=any(word in text for word in pronouns),
        distance=distance / len(facts),
        relations=tuple([fact[1].name for fact in facts]),
    )


@dataclass(slots=True)
class DifficultyReport:
    """Counts over the sentences of a file.

    Attributes:
        num_sentences: Sentences.
        num_triplets: Triplets in all.
        by_num_triplets: Sentences by their number of triplets.
        relations: Triplets by relation name.
        num_characters: Characters in all.
        shares: Sentences by what they have: `pair_overlap` (EPO), `entity_overlap` (SEO),
            `nested`, `object_first`, `pronoun`, `distractor`.
        total_distance: Sum over triplets of the characters between subject and object.
    """

    num_sentences: int = 0
    num_triplets: int = 0
    by_num_triplets: Counter[int] = field(default_factory=Counter)
    relations: Counter[str] = field(default_factory=Counter)
    num_characters: int = 0
    shares: Counter[str] = field(default_factory=Counter)
    total_distance: float = 0.0

    def add(self, measures: Measures) -> None:
        """Count one more sentence."""
        count = measures.num_triplets
        self.num_sentences += 1
        self.num_triplets += count
        self.by_num_triplets[count] += 1
        self.num_characters += measures.num_characters
        if measures.num_distractors:
            self.shares["distractor"] += 1
        if not count:
            return
        self.relations.update(measures.relations)
        self.total_distance += measures.distance * count
        shares = self.shares
        if measures.shares_pair:
            shares["pair_overlap"] += 1
        if measures.shares_entity:
            shares["entity_overlap"] += 1
        if measures.is_nested:
            shares["nested"] += 1
        if measures.is_crossing:
            shares["object_first"] += 1
        if measures.has_pronoun:
            shares["pronoun"] += 1

    @property
    def mean_characters(self) -> float:
        """Mean length of a sentence; 0 when there is none."""
        return self.num_characters / self.num_sentences if self.num_sentences else 0.0

    def to_record(self) -> dict[str, Any]:
        """The report as a JSON object; shares are of all sentences, from 0 to 1."""
        sentences, triplets = max(self.num_sentences, 1), max(self.num_triplets, 1)
        names = (
            "pair_overlap",
            "entity_overlap",
            "nested",
            "object_first",
            "pronoun",
            "distractor",
        )
        return {
            "num_sentences": self.num_sentences,
            "num_triplets": self.num_triplets,
            "by_num_triplets": {
                str(n): self.by_num_triplets[n] for n in sorted(self.by_num_triplets)
            },
            "mean_characters": round(self.mean_characters, 2),
            "mean_distance": round(self.total_distance / triplets, 2),
            "shares": {name: round(self.shares[name] / sentences, 4) for name in names},
            "relations": dict(sorted(self.relations.items(), key=lambda item: (-item[1], item[0]))),
        }
