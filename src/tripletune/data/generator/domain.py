"""What sentences are about: types of entities, relations between them, and their phrasings."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = [
    "Domain",
    "EntityType",
    "Phrasings",
    "Relation",
    "RelationKey",
    "TableRow",
    "state_by_name",
]

Phrasings = Literal["all", "seen", "unseen"]
RelationKey = tuple[str, str, str]
"""Name, subject type and object type of a relation: what it is told apart by."""
TableRow = tuple[str, RelationKey, str]
"""A fact of a table: subject, relation, object."""

# For relations without a phrasing of their own; {r} is the name of the relation.
_SENTENCES_BY_NAME = ("{s}的{r}包括{o}", "{o}是{s}的{r}", "{s}，{r}：{o}", "提到{s}，其{r}是{o}")
_PREDICATES_BY_NAME = ("{r}包括{o}", "{r}：{o}")


@dataclass(frozen=True, slots=True)
class EntityType:
    """How entities of one type are made and spoken of.

    Attributes:
        name: The type, unique in a domain.
        label: What is written into `subject_type` and `object_type`.
        kind: The kind of name that `NameSource` draws; ignored where names are listed.
        mark: How a name stands in a text: `{}`, or `《{}》` for titles.
        pronouns: Words that stand for an entity already named.
        neutral: Predicates that state no relation.
        names: The names there are, instead of a kind.
        shared: Whether listed names occur in training and validation alike; otherwise each
            belongs to one side, as names that are made do.
    """

    name: str
    label: str
    kind: str
    mark: str = "{}"
    pronouns: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation between two types, and the ways to state it.

    Attributes:
        name: The relation as written in triplets.
        subject_type: Name of the subject's type.
        object_type: Name of the object's type.
        nouns: Nouns for the object as the subject has it, for `{s}的创始人是{o}` and the like.
        sentences: Whole clauses with `{s}` and `{o}`.
        predicates: Clauses that go on about a subject already named, with `{o}`.
        modifiers: What stands before the subject and qualifies it, with `{o}`.
        max_objects: How many objects may be listed at once.
    """

    name: str
    subject_type: str
    object_type: str
    nouns: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    predicates: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()
    max_objects: int = 1

    @property
    def key(self) -> RelationKey:
        """What the relation is told apart by."""
        return (self.name, self.subject_type, self.object_type)

    def all_sentences(self) -> tuple[str, ...]:
        """The clauses of their own, and those the nouns give."""
        from_nouns = [f"{{s}}的{noun}{verb}{{o}}" for noun in self.nouns for verb in ("是", "为")]
        return self.sentences + tuple(text for text in from_nouns if text not in self.sentences)

    def all_predicates(self) -> tuple[str, ...]:
        """The predicates, and those the nouns give."""
        from_nouns = [f"{noun}{verb}{{o}}" for noun in self.nouns for verb in ("是", "为")]
        return self.predicates + tuple(text for text in from_nouns if text not in self.predicates)

    def restricted(self, phrasings: Phrasings) -> Relation:
        """The relation with only the phrasings that are (`unseen`) or are not (`seen`) reserved.

        Nouns, sentences, predicates and modifiers are divided by one rule, so that a wording is
        on the same side in whatever form it stands; a side may be left with none.
        """
        if phrasings == "all":
            return self
        reserved = self.reserved_wordings()

        def select(texts: tuple[str, ...]) -> tuple[str, ...]:
            wanted = phrasings == "unseen"
            return tuple(text for text in texts if (_wording(text) in reserved) is wanted)

        return replace(
            self,
            nouns=select(self.nouns),
            sentences=select(self.sentences),
            predicates=select(self.predicates),
            modifiers=select(self.modifiers),
        )

    def reserved_wordings(self) -> frozenset[str]:
        """What is kept for validation when phrasings are held out: a fifth, by a checksum.

        `{s}由{o}主演`, `由{o}主演` and `由{o}主演的` are one wording, `由|主演`.
        """
        clauses = {_wording(text) for text in self.sentences}
        others = {_wording(t) for t in (*self.nouns, *self.predicates, *self.modifiers)} - clauses
        return frozenset(_lowest_fifth(self.name, clauses) + _lowest_fifth(self.name, others))


@dataclass(frozen=True, slots=True)
class Domain:
    """The types and relations that sentences are made of.

    Attributes:
        types: Entity types by name.
        relations: Every relation; the same name may stand for several pairs of types.
        facts: The facts there are; without any, facts are made up.
        named_by_kind: Types whose names were not given, and the kind of names they have instead.
    """

    types: dict[str, EntityType]
    relations: tuple[Relation, ...]
    facts: tuple[TableRow, ...] = ()
    named_by_kind: tuple[tuple[str, str], ...] = ()
    by_subject: dict[str, tuple[Relation, ...]] = field(init=False)

    def __post_init__(self) -> None:
        groups: dict[str, list[Relation]] = {}
        for relation in self.relations:
            groups.setdefault(relation.subject_type, []).append(relation)
        object.__setattr__(self, "by_subject", {k: tuple(v) for k, v in groups.items()})

    def restricted(self, phrasings: Phrasings) -> Domain:
        """The same domain with the phrasings of one side only, or itself for `all`."""
        if phrasings == "all":
            return self
        divided = [relation.restricted(phrasings) for relation in self.relations]
        kept = tuple(relation for relation in divided if relation.all_sentences())
        keys = {relation.key for relation in kept}
        return Domain(self.types, kept, tuple(row for row in self.facts if row[1] in keys))


def state_by_name(relation: Relation) -> Relation:
    """The relation with phrasings made of its name: several, so that some can be held out.

    Predicates and modifiers of its own stay.
    """
    name = relation.name.replace("{", "").replace("}", "") or "关系"

    def fill(templates: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(text.replace("{r}", name) for text in templates)

    return replace(
        relation,
        nouns=(name,),
        sentences=fill(_SENTENCES_BY_NAME),
        predicates=relation.predicates or fill(_PREDICATES_BY_NAME),
    )


def _wording(phrasing: str) -> str:
    return phrasing.replace("{s}", "").replace("{o}", "|").removesuffix("的")


def _lowest_fifth(relation: str, wordings: set[str]) -> list[str]:
    ranked = sorted(wordings, key=lambda text: (zlib.crc32(f"{relation}:{text}".encode()), text))
    return ranked[: max(len(ranked) // 5, int(len(ranked) > 1))]
