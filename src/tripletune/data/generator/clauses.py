"""Clauses that state facts: one, several about a subject, nested, sharing an object, contrasted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.names import NameSource

if TYPE_CHECKING:
    from tripletune.data.generator.sentences import Difficulty

__all__ = ["ClauseWriter", "Fact", "Mention"]

Fact = tuple[str, Relation, str]
Mention = tuple[str, str]

_LARGEST_GROUP = 4
_JOINTS = ("，", "，", "；", "。", "，而")
# A predicate that begins so may follow 都 and 分别.
_PLAIN_STARTS = frozenset("由是毕从来师拜就任供改收根位坐地始创建成隶被出生降在于获荣赢摘加")
_DUAL_ROLES = (
    "{o}既是{s}的{a}，也是{b}",
    "{s}的{a}和{b}都是{o}",
    "{o}是{s}的{a}兼{b}",
    "{s}的{a}是{o}，{b}也是同一个人",
    "{o}不仅是{s}的{a}，还是{s}的{b}",
)
_CONFLICTING = frozenset({"配偶", "父亲", "母亲"})
_DENIALS = (
    "{s}的{n}是{o}，而不是{x}",
    "{s}的{n}不是{x}，而是{o}",
    "{s}的{n}并非{x}，应为{o}",
    "很多人以为{s}的{n}是{x}，其实是{o}",
)


class _Option(NamedTuple):
    """A relation with everything that is looked up while writing."""

    relation: Relation
    subject: EntityType
    object: EntityType
    sentences: tuple[str, ...]
    predicates: tuple[str, ...]
    plain_predicates: tuple[str, ...]
    modifiers: tuple[str, ...]
    nouns: tuple[str, ...]


class _Item(NamedTuple):
    """A relation and its objects, as they stand in the text."""

    option: _Option
    shown: str


class ClauseWriter:
    """Writes the clauses of a sentence and notes the facts they state.

    Args:
        domain: Types, relations and phrasings.
        names: Where names come from.
        random: Numbers from 0 to 1.
        difficulty: How often which structure occurs.
    """

    def __init__(
        self,
        domain: Domain,
        names: NameSource,
        random: Callable[[], float],
        difficulty: Difficulty,
    ) -> None:
        self.names = names
        self._pick = names.pick
        self._random = random
        self._difficulty = difficulty
        self.options = tuple(_compile(relation, domain) for relation in domain.relations)
        self.with_nouns = tuple(option for option in self.options if option.nouns)
        self._by_subject: dict[str, tuple[_Option, ...]] = {
            name: tuple(option for option in self.options if option.subject.name == name)
            for name in domain.by_subject
        }
        self._capacity = {
            name: len({option.relation.name for option in options})
            for name, options in self._by_subject.items()
        }
        self._largest = max(self._capacity.values())
        self._plain_clauses = tuple(
            (option, text)
            for option in self.options
            for text in option.sentences
            if "，" not in text
        ) or tuple((option, option.sentences[0]) for option in self.options)
        self._nestable = tuple(o for o in self.options if o.object.name in self._by_subject)
        self._shareable = tuple(o for o in self.options if o.plain_predicates)
        self._dual = _find_dual_roles(self.options)
        self._facts: list[Fact] = []
        self._mentions: list[Mention] = []

    def write(self, count: int, facts: list[Fact], mentions: list[Mention]) -> str:
        """Clauses that state `count` facts; facts and mentions are added to the lists."""
        self._facts, self._mentions = facts, mentions
        largest = _LARGEST_GROUP
        if count <= largest and (count < 2 or self._random() < 0.8):
            return self._group(count)
        first = min(largest, 1 + int(self._random() * (count - 1)))
        text = self._group(first)
        rest = count - first
        while rest:
            size = min(rest, largest)
            text += self._pick(_JOINTS) + self._group(size)
            rest -= size
        return text

    def write_clause(self, mentions: list[Mention]) -> tuple[str, _Option, str]:
        """One clause that says a relation of two new entities, its relation, its subject as shown.

        The fact is not noted: the clause is meant to be denied or doubted.
        """
        self._facts, self._mentions = [], mentions
        option, text = self._pick(self._plain_clauses)
        subject = self._name(option.subject)
        shown = option.subject.mark.format(subject)
        return text.format(s=shown, o=self._show(self._name(option.object), option)), option, shown

    def new_object(self, option: _Option, mentions: list[Mention]) -> str:
        """Another object of a relation, as shown in a text."""
        self._mentions = mentions
        return self._show(self._name(option.object), option)

    def _group(self, count: int) -> str:
        if count > 1:
            chance = self._random()
            if chance < self._difficulty.nested_rate and self._nestable:
                return self._nested(count)
            if chance < self._difficulty.nested_rate + self._difficulty.overlap_rate:
                return self._overlap(count)
        option = self._pick(self.options)
        while self._capacity[option.subject.name] < min(count, self._largest):
            option = self._pick(self.options)
        subject = self._name(option.subject)
        before = len(self._facts)
        text = self._about(option.subject, subject, self._items(option, subject, count, set()))
        return text + self._go_on(count - len(self._facts) + before)

    def _go_on(self, count: int) -> str:
        """Further clauses for facts that found no place in what was written."""
        return self._pick(_JOINTS) + self._group(count) if count else ""

    def _name(self, entity_type: EntityType) -> str:
        name = self.names.draw(entity_type.kind)
        self._mentions.append((name, entity_type.name))
        return name

    def _show(self, name: str, option: _Option) -> str:
        return option.object.mark.format(name)

    def _items(self, first: _Option, subject: str, count: int, used: set[str]) -> list[_Item]:
        """Up to `count` facts about a subject by relations not used so far, grouped by relation."""
        items: list[_Item] = []
        used.add(first.relation.name)
        option = first
        siblings = self._by_subject[first.subject.name]
        capacity = self._capacity[first.subject.name]
        while True:
            size = 1
            most = min(count, option.relation.max_objects)
            if most > 1 and self._random() < self._difficulty.list_rate:
                size = 2 + int(self._random() * (most - 1))
            items.append(_Item(option, self._list_objects(option, subject, size)))
            count -= size
            if not count or len(used) == capacity:
                return items
            while option.relation.name in used:
                option = self._pick(siblings)
            used.add(option.relation.name)

    def _list_objects(self, option: _Option, subject: str, size: int) -> str:
        shown = []
        for _ in range(size):
            name = self._name(option.object)
            while size > 1 and self._show(name, option) in shown:
                name = self._name(option.object)
            self._facts.append((subject, option.relation, name))
            shown.append(self._show(name, option))
        return shown[0] if size == 1 else self._join(shown)

    def _join(self, shown: Sequence[str]) -> str:
        last = self._pick(("和", "和", "与", "、", "以及", "及"))
        return "、".join(shown[:-1]) + last + shown[-1]

    def _about(self, entity: EntityType, subject: str, items: list[_Item]) -> str:
        shown = entity.mark.format(subject)
        if len(items) == 1:
            return self._single(entity, shown, items[0])
        return self._several(entity, shown, items)

    def _single(self, entity: EntityType, shown: str, item: _Item) -> str:
        option, chance = item.option, self._random()
        if chance < 0.14 and option.modifiers and entity.neutral:
            modifier = self._pick(option.modifiers).format(o=item.shown)
            return modifier + shown + self._pick(entity.neutral)
        if chance < 0.22 and option.predicates:
            return shown + self._pick(option.predicates).format(o=item.shown)
        if chance < 0.22 + self._difficulty.negation_rate and option.nouns:
            return self._pick(_DENIALS).format(
                s=shown,
                n=self._pick(option.nouns),
                o=item.shown,
                x=self._show(self._name(option.object), option),
            )
        if chance > 0.97 and option.nouns and entity.neutral:
            brackets = f"（{self._pick(option.nouns)}：{item.shown}）"
            neutral = self._pick(entity.neutral)
            return shown + brackets + neutral.removeprefix("的")
        return self._pick(option.sentences).format(s=shown, o=item.shown)

    def _several(self, entity: EntityType, shown: str, items: list[_Item]) -> str:
        chance = self._random()
        if any(not item.option.predicates for item in items[1:]):
            return self._repeated(shown, items)
        if chance < self._difficulty.pronoun_rate and entity.pronouns:
            return self._with_pronoun(entity, shown, items)
        chance = self._random()
        if chance < 0.3 and items[0].option.modifiers:
            modifier = self._pick(items[0].option.modifiers).format(o=items[0].shown)
            return modifier + shown + self._predicates(items[1:])
        if chance < 0.42 and all(item.option.nouns for item in items):
            parts = [f"{self._pick(i.option.nouns)}{self._pick('是为')}{i.shown}" for i in items]
            return f"{shown}的" + "，".join(parts)
        if chance < 0.5 and items[0].option.nouns:
            first = f"（{self._pick(items[0].option.nouns)}：{items[0].shown}）"
            return shown + first + self._predicates(items[1:])
        if chance < 0.6 or not items[0].option.predicates:
            return self._repeated(shown, items)
        topic = "，" if self._random() < 0.2 else ""
        return shown + topic + self._predicates(items)

    def _predicates(self, items: Sequence[_Item]) -> str:
        return "，".join(
            [self._pick(item.option.predicates).format(o=item.shown) for item in items]
        )

    def _with_pronoun(self, entity: EntityType, shown: str, items: list[_Item]) -> str:
        option = items[0].option
        # A pronoun after `O是S的父亲` could mean either, so the subject comes first then.
        if option.object.name == entity.name and option.predicates:
            first = shown + self._pick(option.predicates).format(o=items[0].shown)
        else:
            first = self._pick(option.sentences).format(s=shown, o=items[0].shown)
        joint = self._pick(("，", "，", "。", "；"))
        return first + joint + self._pick(entity.pronouns) + self._predicates(items[1:])

    def _repeated(self, shown: str, items: list[_Item]) -> str:
        sentences = [self._pick(i.option.sentences).format(s=shown, o=i.shown) for i in items]
        return self._pick(("，", "；", "。")).join(sentences)

    def _nested(self, count: int) -> str:
        """Facts about a subject, and facts about the object of one of them."""
        before = len(self._facts)
        option = self._pick(self._nestable)
        num_inner = min(count - 1, self._capacity[option.object.name], 1 + int(self._random() * 2))
        num_outer = min(count - num_inner, self._capacity[option.subject.name])
        subject = self._name(option.subject)
        shown = option.subject.mark.format(subject)
        middle = self._name(option.object)
        self._facts.append((subject, option.relation, middle))
        text = ""
        if num_outer > 1:
            siblings = self._by_subject[option.subject.name]
            other = self._pick(siblings)
            while other.relation.name == option.relation.name:
                other = self._pick(siblings)
            used = {option.relation.name}
            outer = self._items(other, subject, num_outer - 1, used)
            text = self._about(option.subject, subject, outer) + self._pick(("，", "。", "；"))
        inner = self._pick(self._by_subject[option.object.name])
        text += self._link(option, shown, middle, self._items(inner, middle, num_inner, set()))
        return text + self._go_on(count - len(self._facts) + before)

    def _link(self, option: _Option, shown: str, middle: str, items: list[_Item]) -> str:
        middle_shown = self._show(middle, option)
        chance = self._random()
        has_predicates = all(item.option.predicates for item in items)
        if chance < 0.3 and len(items) == 1 and items[0].option.modifiers:
            modified = self._pick(items[0].option.modifiers).format(o=items[0].shown) + middle_shown
            return self._pick(option.sentences).format(s=shown, o=modified)
        if chance < 0.55 and option.nouns and has_predicates:
            noun = self._pick(option.nouns)
            return f"{shown}的{noun}{middle_shown}{self._predicates(items)}"
        sentence = self._pick(option.sentences).format(s=shown, o=middle_shown)
        pronouns = option.object.pronouns
        if chance < 0.7 and has_predicates and pronouns and option.object != option.subject:
            return f"{sentence}，{self._pick(pronouns)}{self._predicates(items)}"
        joint = self._pick(("，", "。", "；"))
        return sentence + joint + self._about(option.object, middle, items)

    def _overlap(self, count: int) -> str:
        """Facts that share an object, a pair of entities or a relation, and others for the rest."""
        chance = self._random()
        if chance < 0.3 and self._dual:
            text = self._dual_role()
        elif chance < 0.6 and self._shareable:
            text = self._shared_object()
        else:
            text = self._contrast()
        return text + self._go_on(count - 2)

    def _dual_role(self) -> str:
        first, second = self._pick(self._dual)
        subject, object_ = self._name(first.subject), self._name(first.object)
        self._facts.append((subject, first.relation, object_))
        self._facts.append((subject, second.relation, object_))
        return self._pick(_DUAL_ROLES).format(
            s=first.subject.mark.format(subject),
            o=self._show(object_, first),
            a=first.nouns[0],
            b=second.nouns[0],
        )

    def _shared_object(self) -> str:
        option = self._pick(self._shareable)
        subjects = [self._name(option.subject), self._name(option.subject)]
        object_ = self._name(option.object)
        for subject in subjects:
            self._facts.append((subject, option.relation, object_))
        shown = [option.subject.mark.format(subject) for subject in subjects]
        predicate = self._pick(option.plain_predicates).format(o=self._show(object_, option))
        joint = self._pick(("和", "与", "、", "跟"))
        return joint.join(shown) + self._pick(("都", "均", "同样")) + predicate

    def _contrast(self) -> str:
        option = self._pick(self._shareable or self.options)
        subjects = [self._name(option.subject), self._name(option.subject)]
        objects = [self._name(option.object), self._name(option.object)]
        for subject, object_ in zip(subjects, objects, strict=True):
            self._facts.append((subject, option.relation, object_))
        first, second = (option.subject.mark.format(subject) for subject in subjects)
        one, other = (self._show(object_, option) for object_ in objects)
        chance = self._random()
        if chance < 0.4 and option.plain_predicates:
            predicate = self._pick(option.plain_predicates).format(o=f"{one}和{other}")
            return f"{first}和{second}分别{predicate}"
        text = self._pick(option.sentences).format(s=first, o=one) + "，"
        if chance < 0.75 and option.plain_predicates:
            return text + second + "则" + self._pick(option.plain_predicates).format(o=other)
        return text + "而" + self._pick(option.sentences).format(s=second, o=other)


def _compile(relation: Relation, domain: Domain) -> _Option:
    predicates = relation.all_predicates()
    return _Option(
        relation,
        domain.types[relation.subject_type],
        domain.types[relation.object_type],
        relation.all_sentences(),
        predicates,
        tuple(text for text in relation.predicates if text[0] in _PLAIN_STARTS),
        relation.modifiers,
        relation.nouns,
    )


def _find_dual_roles(options: Sequence[_Option]) -> tuple[tuple[_Option, _Option], ...]:
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
