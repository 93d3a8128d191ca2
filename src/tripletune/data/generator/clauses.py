"""Clauses that state facts: one, several about a subject, nested, sharing an object, contrasted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tripletune.data.generator.domain import EntityType, Relation
from tripletune.data.generator.names import NameSource
from tripletune.data.generator.world import InventedWorld, Option

if TYPE_CHECKING:
    from tripletune.data.generator.sentences import Difficulty

__all__ = ["ClauseWriter", "Fact", "Mention"]

Fact = tuple[str, Relation, str]
Mention = tuple[str, str]

_LARGEST_GROUP = 4
_JOINTS = ("，", "，", "；", "。", "，而")
_DUAL_ROLES = (
    "{o}既是{s}的{a}，也是{b}",
    "{s}的{a}和{b}都是{o}",
    "{o}是{s}的{a}兼{b}",
    "{s}的{a}是{o}，{b}也是同一个人",
    "{o}不仅是{s}的{a}，还是{s}的{b}",
)
_DENIALS = (
    "{s}的{n}是{o}，而不是{x}",
    "{s}的{n}不是{x}，而是{o}",
    "{s}的{n}并非{x}，应为{o}",
    "很多人以为{s}的{n}是{x}，其实是{o}",
)


class _Item(NamedTuple):
    """A relation and its objects, as they stand in the text."""

    option: Option
    shown: str


class ClauseWriter:
    """Writes the clauses of a sentence and notes the facts they state.

    Args:
        world: Where facts come from.
        names: What chooses among wordings.
        random: Numbers from 0 to 1.
        difficulty: How often which structure occurs.
    """

    def __init__(
        self,
        world: InventedWorld,
        names: NameSource,
        random: Callable[[], float],
        difficulty: Difficulty,
    ) -> None:
        self._world = world
        self._pick = names.pick
        self._random = random
        self._difficulty = difficulty
        self._plain_clauses = tuple(
            (option, text)
            for option in world.options
            for text in option.sentences
            if "，" not in text
        ) or tuple((option, option.sentences[0]) for option in world.options)
        self._names = names
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

    def write_doubtful(self, mentions: list[Mention]) -> str | None:
        """One clause that says a relation not known to hold, or None; no fact is noted."""
        self._mentions = mentions
        option, text = self._pick(self._plain_clauses)
        subject = self._names.draw(option.subject.kind)
        wrong = self._world.draw_wrong(option, subject)
        if wrong is None:
            return None
        shown = option.subject.mark.format(self._note(subject, option.subject))
        return text.format(s=shown, o=self._show(self._note(wrong, option.object), option))

    def _group(self, count: int) -> str:
        if count > 1:
            chance = self._random()
            text = None
            if chance < self._difficulty.nested_rate:
                text = self._nested(count)
            elif chance < self._difficulty.nested_rate + self._difficulty.overlap_rate:
                text = self._overlap(count)
            if text is not None:
                return text
        option, subject = self._world.draw_about(count)
        self._note(subject, option.subject)
        before = len(self._facts)
        text = self._about(option.subject, subject, self._items(option, subject, count, set()))
        return text + self._go_on(count - len(self._facts) + before)

    def _go_on(self, count: int) -> str:
        """Further clauses for facts that found no place in what was written."""
        return self._pick(_JOINTS) + self._group(count) if count else ""

    def _note(self, name: str, entity_type: EntityType) -> str:
        self._mentions.append((name, entity_type.name))
        return name

    def _show(self, name: str, option: Option) -> str:
        return option.object.mark.format(name)

    def _items(self, first: Option, subject: str, count: int, used: set[str]) -> list[_Item]:
        """Up to `count` facts about a subject by relations not used so far, grouped by relation."""
        items: list[_Item] = []
        option: Option | None = first
        while option is not None and count:
            used.add(option.relation.name)
            size = 1
            most = min(count, option.relation.max_objects)
            if most > 1 and self._random() < self._difficulty.list_rate:
                size = 2 + int(self._random() * (most - 1))
            objects = self._world.draw_objects(option, subject, size)
            items.append(_Item(option, self._state(option, subject, objects)))
            count -= len(objects)
            if count:
                option = self._world.next_option(option.subject.name, subject, used)
        return items

    def _state(self, option: Option, subject: str, objects: Sequence[str]) -> str:
        """The objects as they stand in a text; a fact is noted for each."""
        shown = []
        for name in objects:
            self._facts.append((subject, option.relation, self._note(name, option.object)))
            shown.append(self._show(name, option))
        return shown[0] if len(shown) == 1 else self._join(shown)

    def _join(self, shown: Sequence[str]) -> str:
        last = self._pick(("和", "和", "与", "、", "以及", "及"))
        return "、".join(shown[:-1]) + last + shown[-1]

    def _about(self, entity: EntityType, subject: str, items: list[_Item]) -> str:
        shown = entity.mark.format(subject)
        if len(items) == 1:
            return self._single(entity, subject, items[0])
        return self._several(entity, shown, items)

    def _single(self, entity: EntityType, subject: str, item: _Item) -> str:
        option, chance = item.option, self._random()
        shown = entity.mark.format(subject)
        if chance < 0.14 and option.modifiers and entity.neutral:
            modifier = self._pick(option.modifiers).format(o=item.shown)
            return modifier + shown + self._pick(entity.neutral)
        if chance < 0.22 and option.predicates:
            return shown + self._pick(option.predicates).format(o=item.shown)
        if chance < 0.22 + self._difficulty.negation_rate and option.nouns:
            wrong = self._world.draw_wrong(option, subject)
            if wrong is not None:
                return self._pick(_DENIALS).format(
                    s=shown,
                    n=self._pick(option.nouns),
                    o=item.shown,
                    x=self._show(self._note(wrong, option.object), option),
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

    def _nested(self, count: int) -> str | None:
        """Facts about a subject, and facts about the object of one of them."""
        drawn = self._world.draw_nested()
        if drawn is None:
            return None
        before = len(self._facts)
        option, subject, middle = drawn
        outer_type, inner_type = option.subject, option.object
        num_inner = min(
            count - 1, self._world.capacity(inner_type.name, middle), 1 + int(self._random() * 2)
        )
        num_outer = min(count - num_inner, self._world.capacity(outer_type.name, subject))
        shown = outer_type.mark.format(self._note(subject, outer_type))
        self._state(option, subject, [middle])
        text = ""
        if num_outer > 1:
            used = {option.relation.name}
            other = self._world.next_option(outer_type.name, subject, used)
            if other is not None:
                outer = self._items(other, subject, num_outer - 1, used)
                text = self._about(outer_type, subject, outer) + self._pick(("，", "。", "；"))
        inner = self._world.next_option(inner_type.name, middle, ())
        if inner is not None:
            text += self._link(option, shown, middle, self._items(inner, middle, num_inner, set()))
        return text + self._go_on(count - len(self._facts) + before)

    def _link(self, option: Option, shown: str, middle: str, items: list[_Item]) -> str:
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

    def _overlap(self, count: int) -> str | None:
        """Facts that share an object, a pair of entities or a relation, and others for the rest."""
        before = len(self._facts)
        chance = self._random()
        text = None
        if chance < 0.3:
            text = self._dual_role()
        if text is None and chance < 0.6:
            text = self._shared_object()
        if text is None:
            text = self._contrast()
        return None if text is None else text + self._go_on(count - len(self._facts) + before)

    def _dual_role(self) -> str | None:
        drawn = self._world.draw_dual()
        if drawn is None:
            return None
        first, second, subject, object_ = drawn
        self._note(subject, first.subject)
        self._note(object_, first.object)
        self._facts.append((subject, first.relation, object_))
        self._facts.append((subject, second.relation, object_))
        return self._pick(_DUAL_ROLES).format(
            s=first.subject.mark.format(subject),
            o=self._show(object_, first),
            a=first.nouns[0],
            b=second.nouns[0],
        )

    def _shared_object(self) -> str | None:
        drawn = self._world.draw_shared()
        if drawn is None:
            return None
        option, subjects, object_ = drawn
        self._note(object_, option.object)
        for subject in subjects:
            self._note(subject, option.subject)
            self._facts.append((subject, option.relation, object_))
        shown = [option.subject.mark.format(subject) for subject in subjects]
        predicate = self._pick(option.plain_predicates).format(o=self._show(object_, option))
        joint = self._pick(("和", "与", "、", "跟"))
        return joint.join(shown) + self._pick(("都", "均", "同样")) + predicate

    def _contrast(self) -> str | None:
        drawn = self._world.draw_contrast()
        if drawn is None:
            return None
        option, subjects, objects = drawn
        for subject, object_ in zip(subjects, objects, strict=True):
            self._note(subject, option.subject)
            self._state(option, subject, [object_])
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
