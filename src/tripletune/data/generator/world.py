"""Where facts come from: made up on the spot, or taken from a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from tripletune.data.generator.domain import Domain, EntityType, Relation, RelationKey
from tripletune.data.generator.names import NameSource, has_name
from tripletune.errors import ConfigError

__all__ = ["InventedWorld", "Option", "TableWorld", "build_world"]

# A predicate that begins so may follow 都 and 分别.
_PLAIN_STARTS = frozenset("由是毕从来师拜就任供改收根位坐地始创建成隶被出生降在于获荣赢摘加")
_CONFLICTING = frozenset({"配偶", "父亲", "母亲"})
_ATTEMPTS = 20


class Option(NamedTuple):
    """A relation with everything that is looked up while writing."""

    relation: Relation
    subject: EntityType
    object: EntityType
    sentences: tuple[str, ...]
    predicates: tuple[str, ...]
    plain_predicates: tuple[str, ...]
    modifiers: tuple[str, ...]
    nouns: tuple[str, ...]


_Stated = tuple[Option, str, str]


class InventedWorld:
    """Facts that are made up: any subject can have any relation of its type to any object.

    Args:
        domain: Types, relations and phrasings.
        names: Where names come from.
        random: Numbers from 0 to 1.
    """

    def __init__(self, domain: Domain, names: NameSource, random: Callable[[], float]) -> None:
        self._names = names
        self._pick = names.pick
        self._random = random
        self.options = tuple(compile_option(relation, domain) for relation in domain.relations)
        self._by_subject: dict[str, tuple[Option, ...]] = {
            name: tuple(option for option in self.options if option.subject.name == name)
            for name in domain.by_subject
        }
        self._capacity = {
            name: len({option.relation.name for option in options})
            for name, options in self._by_subject.items()
        }
        self._largest = max(self._capacity.values())
        self._nestable = tuple(o for o in self.options if o.object.name in self._by_subject)
        self._shareable = tuple(o for o in self.options if o.plain_predicates)
        self._dual = _find_dual_roles(self.options)

    def draw_about(self, count: int) -> tuple[Option, str]:
        """A relation and a subject of which, if possible, `count` relations can be told."""
        option = self._pick(self.options)
        while self._capacity[option.subject.name] < min(count, self._largest):
            option = self._pick(self.options)
        return option, self._names.draw(option.subject.kind)

    def draw_objects(self, option: Option, subject: str, size: int) -> list[str]:
        """Up to `size` different objects, at least one."""
        objects: list[str] = []
        for _ in range(_ATTEMPTS):
            name = self._names.draw(option.object.kind)
            if name not in objects and name != subject:
                objects.append(name)
            if len(objects) == size:
                return objects
        return objects or [name]

    def next_option(self, kind: str, subject: str, used: Collection[str]) -> Option | None:
        """A relation that the subject has and whose name is not used yet, or None."""
        if self.capacity(kind, subject) <= len(used):
            return None
        option = self._pick(self._by_subject[kind])
        while option.relation.name in used:
            option = self._pick(self._by_subject[kind])
        return option

    def capacity(self, kind: str, subject: str) -> int:
        """How many differently named relations a subject has."""
        return self._capacity[kind]

    def draw_nested(self) -> tuple[Option, str, str] | None:
        """A relation, its subject, and an object that is the subject of further facts."""
        if not self._nestable:
            return None
        option = self._pick(self._nestable)
        subject = self._names.draw(option.subject.kind)
        return option, subject, self.draw_objects(option, subject, 1)[0]

    def draw_shared(self) -> tuple[Option, list[str], str] | None:
        """A relation, two subjects, and the object both have."""
        if not self._shareable:
            return None
        option = self._pick(self._shareable)
        subjects = self._two(option.subject.kind)
        return option, subjects, self._names.draw(option.object.kind)

    def draw_contrast(self) -> tuple[Option, list[str], list[str]] | None:
        """A relation, two subjects and the object of each."""
        option = self._pick(self._shareable or self.options)
        return option, self._two(option.subject.kind), self._two(option.object.kind)

    def draw_dual(self) -> tuple[Option, Option, str, str] | None:
        """Two relations, and a subject and an object between which both hold."""
        if not self._dual:
            return None
        first, second = self._pick(self._dual)
        subject = self._names.draw(first.subject.kind)
        return first, second, subject, self.draw_objects(first, subject, 1)[0]

    def draw_wrong(self, option: Option, subject: str) -> str | None:
        """An object of the right type that the subject does not have, or None."""
        return self._names.draw(option.object.kind)

    def _two(self, kind: str) -> list[str]:
        first = self._names.draw(kind)
        for _ in range(_ATTEMPTS):
            second = self._names.draw(kind)
            if second != first:
                break
        return [first, second]


class TableWorld(InventedWorld):
    """Facts from a table: only what it holds is stated.

    Args:
        domain: Types, relations, phrasings, and the table.
        names: Where names that take part in no fact come from; its pool decides which subjects of
            types that are not shared belong here.
        random: Numbers from 0 to 1.

    Raises:
        ConfigError: the table has no fact for this pool.
    """

    def __init__(self, domain: Domain, names: NameSource, random: Callable[[], float]) -> None:
        super().__init__(domain, names, random)
        options = {option.relation.key: option for option in self.options}
        self._facts: list[_Stated] = []
        self._objects: dict[tuple[str, str], dict[RelationKey, list[str]]] = {}
        for subject, key, object_ in domain.facts:
            option = options[key]
            if option.subject.shared or has_name(names.pool, subject):
                self._facts.append((option, subject, object_))
                known = self._objects.setdefault((option.subject.name, subject), {})
                known.setdefault(key, []).append(object_)
        self._by_key = options
        if not self._facts:
            raise ConfigError(
                f"facts: none of the {len(domain.facts)} facts has a subject in the pool "
                f"{names.pool!r}; give more facts, or make the subject's type shared"
            )
        stated = {option.relation.key for option, _, _ in self._facts}
        self.options = tuple(option for key, option in options.items() if key in stated)
        self._nested_facts = [f for f in self._facts if (f[0].object.name, f[2]) in self._objects]
        self._shared = _find_shared(self._facts)
        self._pairs = _find_pairs(self._facts)
        self._by_relation = _group_by_relation(self._facts)

    def draw_about(self, count: int) -> tuple[Option, str]:
        """A relation and a subject of which, if possible, `count` relations can be told."""
        for _ in range(_ATTEMPTS):
            option, subject, _ = self._pick(self._facts)
            if self.capacity(option.subject.name, subject) >= count:
                break
        return option, subject

    def draw_objects(self, option: Option, subject: str, size: int) -> list[str]:
        """Up to `size` different objects, at least one."""
        known = self._objects[option.subject.name, subject][option.relation.key]
        start = int(self._random() * len(known))
        return (known[start:] + known[:start])[:size]

    def next_option(self, kind: str, subject: str, used: Collection[str]) -> Option | None:
        """A relation that the subject has and whose name is not used yet, or None."""
        known = self._objects.get((kind, subject), {})
        left = [key for key in known if key[0] not in used]
        return self._by_key[self._pick(left)] if left else None

    def capacity(self, kind: str, subject: str) -> int:
        """How many differently named relations a subject has."""
        return len({key[0] for key in self._objects.get((kind, subject), ())})

    def draw_nested(self) -> tuple[Option, str, str] | None:
        """A relation, its subject, and an object that is the subject of further facts."""
        return self._pick(self._nested_facts) if self._nested_facts else None

    def draw_shared(self) -> tuple[Option, list[str], str] | None:
        """A relation, two subjects, and the object both have."""
        if not self._shared:
            return None
        option, object_, subjects = self._pick(self._shared)
        start = int(self._random() * len(subjects))
        return option, [subjects[start], subjects[start - 1]], object_

    def draw_contrast(self) -> tuple[Option, list[str], list[str]] | None:
        """A relation, two subjects and the object of each."""
        option, subject, object_ = self._pick(self._facts)
        for _ in range(_ATTEMPTS):
            other, other_object = self._pick(self._by_relation[option.relation.key])
            if other != subject and other_object != object_:
                return option, [subject, other], [object_, other_object]
        return None

    def draw_dual(self) -> tuple[Option, Option, str, str] | None:
        """Two relations, and a subject and an object between which both hold."""
        return self._pick(self._pairs) if self._pairs else None

    def draw_wrong(self, option: Option, subject: str) -> str | None:
        """An object of the right type that the subject does not have, or None."""
        key = option.relation.key
        known = self._objects.get((option.subject.name, subject), {}).get(key, [])
        for _ in range(_ATTEMPTS):
            _, name = self._pick(self._by_relation[key])
            if name not in known:
                return name
        return None


def build_world(domain: Domain, names: NameSource, random: Callable[[], float]) -> InventedWorld:
    """The world of a domain: its table of facts when it has one.

    Raises:
        ConfigError: the table has no fact for the pool of the names.
    """
    return (TableWorld if domain.facts else InventedWorld)(domain, names, random)


def compile_option(relation: Relation, domain: Domain) -> Option:
    """A relation with its types and all of its phrasings."""
    return Option(
        relation,
        domain.types[relation.subject_type],
        domain.types[relation.object_type],
        relation.all_sentences(),
        relation.all_predicates(),
        tuple(text for text in relation.predicates if text[0] in _PLAIN_STARTS),
        relation.modifiers,
        relation.nouns,
    )


def _find_dual_roles(options: Sequence[Option]) -> tuple[tuple[Option, Option], ...]:
    """Pairs of relations that one person can have to the same subject."""
    return tuple(
        (first, second)
        for first in options
        for second in options
        if first.subject == second.subject
        and first.object == second.object
        and first.object.name == "人物"
        and first.relation.name != second.relation.name
        and first.nouns
        and second.nouns
        and not {first.relation.name, second.relation.name} <= _CONFLICTING
    )


def _find_shared(facts: Sequence[_Stated]) -> list[tuple[Option, str, list[str]]]:
    """Objects that several subjects have by one relation that can be told of two at once."""
    groups: dict[tuple[RelationKey, str], tuple[Option, str, list[str]]] = {}
    for option, subject, object_ in facts:
        if option.plain_predicates:
            key = (option.relation.key, object_)
            groups.setdefault(key, (option, object_, []))[2].append(subject)
    return [group for group in groups.values() if len(group[2]) > 1]


def _find_pairs(facts: Sequence[_Stated]) -> list[tuple[Option, Option, str, str]]:
    """Subjects and objects between which two relations with nouns hold."""
    groups: dict[tuple[str, str], list[Option]] = {}
    for option, subject, object_ in facts:
        if option.nouns:
            groups.setdefault((subject, object_), []).append(option)
    return [
        (first, second, *pair)
        for pair, options in groups.items()
        for first in options
        for second in options
        if first.relation.name != second.relation.name
    ]


def _group_by_relation(facts: Sequence[_Stated]) -> Mapping[RelationKey, list[tuple[str, str]]]:
    groups: dict[RelationKey, list[tuple[str, str]]] = {}
    for option, subject, object_ in facts:
        groups.setdefault(option.relation.key, []).append((subject, object_))
    return groups
