"""What the embedded base model is trained on: questions about generated sentences, and answers.

The sentences are made of names of the `base` pool, which no training or validation sentence can
hold. More than half of the questions ask for all facts of a sentence, in many formats; the rest
for one relation, one item, entities of a type, the relation of two entities, whether a statement
holds, or for text to be copied. The triplet format and its prompt never occur.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from tripletune.data.generator import base_wordings as words
from tripletune.data.generator.base_formats import FORMATS, compose_format, render_facts
from tripletune.data.generator.clauses import Fact
from tripletune.data.generator.domain import EntityType
from tripletune.data.generator.sentences import Difficulty, Sentence, SentenceGenerator

__all__ = ["TASKS", "BaseTasks", "iter_base_pairs"]

_TASKS_PER_SENTENCE = 3
_PLAIN = Difficulty(num_triplets=(0.12, 0.30, 0.26, 0.18, 0.10, 0.04), distractor_rate=0.5)
_ODD = Difficulty(
    num_triplets=(0.08, 0.32, 0.28, 0.18, 0.10, 0.04),
    distractor_rate=0.5,
    negation_rate=0.08,
    odd_names=0.6,
)
_ODD_SHARE = 0.35
_TWO_SENTENCES_SHARE = 0.08

Pair = tuple[str, str]


def iter_base_pairs(seed: int, num: int) -> Iterator[Pair]:
    """`num` pairs of what is asked and what is to be answered, the same for the same seed."""
    return BaseTasks(seed).iter_pairs(num)


class BaseTasks:
    """A stream of question and answer pairs.

    Args:
        seed: Seed of the stream.
    """

    def __init__(self, seed: int) -> None:
        self._plain = SentenceGenerator("base", 2 * seed, difficulty=_PLAIN)
        self._odd = SentenceGenerator("base", 2 * seed + 1, difficulty=_ODD)
        self._names = self._odd.names
        self._pick = self._names.pick
        self._random = random.Random(f"base tasks:{seed}").random
        self._types = self._plain.domain.types
        self._relations = sorted({r.name for r in self._plain.domain.relations})
        self._thresholds = _accumulate([weight for _, weight in TASKS])
        self._tasks: list[Callable[[Sentence], Pair | None]] = [
            getattr(self, f"_{name}") for name, _ in TASKS
        ]

    def iter_pairs(self, num: int) -> Iterator[Pair]:
        """The next `num` pairs."""
        while num > 0:
            sentence = self._sentence()
            for _ in range(_TASKS_PER_SENTENCE):
                pair = self._draw_task()(sentence)
                if pair is not None and num > 0:
                    num -= 1
                    yield pair

    def _sentence(self) -> Sentence:
        sentence = self._one_sentence()
        if self._random() >= _TWO_SENTENCES_SHARE:
            return sentence
        second = self._one_sentence()
        first = sentence.text if sentence.text[-1] in "。！？" else sentence.text + "。"
        return Sentence(
            first + second.text,
            sentence.facts + second.facts,
            sentence.mentions + second.mentions,
        )

    def _one_sentence(self) -> Sentence:
        source = self._odd if self._random() < _ODD_SHARE else self._plain
        return source.generate_sentence()

    def _draw_task(self) -> Callable[[Sentence], Pair | None]:
        chance = self._random()
        for task, threshold in zip(self._tasks, self._thresholds, strict=True):
            if chance < threshold:
                return task
        return self._tasks[-1]

    def _ask(self, request: str, text: str) -> str:
        asked = self._pick(words.LAYOUTS).format(q=request, t=text)
        return asked.replace("？。", "？").replace("？：", "？").replace("？:", "？")

    def _all_facts(self, sentence: Sentence) -> Pair:
        composed = self._random() < 0.4
        form = compose_format(self._names) if composed else self._pick(FORMATS)
        request = form.instructions[0] if composed else self._pick(form.instructions)
        answer = render_facts(form, sentence.facts, self._types)
        return self._ask(request, sentence.text), answer

    def _one_relation(self, sentence: Sentence) -> Pair:
        name = self._some_relation(sentence.facts)
        facts = [fact for fact in sentence.facts if fact[1].name == name]
        form = compose_format(self._names) if self._random() < 0.3 else None
        if form is None:
            request = self._pick(words.ONE_RELATION).format(r=name)
            answer = "\n".join([f"{s}：{o}" for s, _, o in facts]) or self._pick(words.NOTHING)
        else:
            request = f"{form.instructions[0]}，只要“{name}”"
            answer = render_facts(form, facts, self._types)
        return self._ask(request, sentence.text), answer

    def _some_relation(self, facts: Sequence[Fact]) -> str:
        if facts and self._random() < 0.8:
            return self._pick(facts)[1].name
        return self._pick(self._relations)

    def _object_question(self, sentence: Sentence) -> Pair | None:
        if not sentence.facts:
            return self._unanswerable(sentence)
        subject, relation, _ = self._pick(sentence.facts)
        objects = [o for s, r, o in sentence.facts if s == subject and r.name == relation.name]
        noun = self._pick((relation.name, *relation.nouns))
        shown = self._types[relation.subject_type].mark.format(subject)
        question = self._pick(words.OBJECT_QUESTIONS).format(
            s=shown, n=noun, w=words.QUESTION_WORDS.get(relation.object_type, "什么")
        )
        answer = "、".join(objects)
        if self._random() < 0.15:
            answer = f"{shown}的{noun}是{answer}。"
            question += "请用完整的句子回答"
        return self._ask(question, sentence.text), answer

    def _unanswerable(self, sentence: Sentence) -> Pair | None:
        if not sentence.mentions:
            return None
        name, kind = self._pick(sentence.mentions)
        relations = self._plain.domain.by_subject.get(kind)
        if not relations:
            return None
        relation = self._pick(relations)
        question = self._pick(words.OBJECT_QUESTIONS).format(
            s=self._types[kind].mark.format(name),
            n=self._pick((relation.name, *relation.nouns)),
            w=words.QUESTION_WORDS.get(relation.object_type, "什么"),
        )
        return self._ask(question, sentence.text), self._pick(words.NOTHING)

    def _subject_question(self, sentence: Sentence) -> Pair | None:
        if not sentence.facts:
            return None
        _, relation, object_ = self._pick(sentence.facts)
        subjects = [s for s, r, o in sentence.facts if o == object_ and r.name == relation.name]
        question = self._pick(words.SUBJECT_QUESTIONS).format(
            n=relation.name,
            o=self._types[relation.object_type].mark.format(object_),
            a=self._types[relation.subject_type].label,
        )
        return self._ask(question, sentence.text), "、".join(subjects)

    def _entities(self, sentence: Sentence) -> Pair:
        entities = _in_order(sentence)
        if self._random() < 0.3:
            request = self._pick(words.ALL_ENTITIES)
            lines = [f"{name}：{self._label(kind)}" for name, kind in entities]
            return self._ask(request, sentence.text), "\n".join(lines) or "没有"
        if entities and self._random() < 0.85:
            label = self._label(self._pick(entities)[1])
        else:
            label = self._pick(words.TYPE_LABELS)
        found = [name for name, kind in entities if self._label(kind) == label]
        request = self._pick(words.ENTITIES_OF_A_TYPE).format(a=label)
        return self._ask(request, sentence.text), "、".join(found) or "没有"

    def _label(self, kind: str) -> str:
        entity: EntityType | None = self._types.get(kind)
        return entity.label if entity else kind

    def _relation_of_pair(self, sentence: Sentence) -> Pair | None:
        facts = sentence.facts
        if facts and self._random() < 0.85:
            subject, _, object_ = self._pick(facts)
        elif len(sentence.mentions) > 1:
            subject, object_ = self._pick(sentence.mentions)[0], self._pick(sentence.mentions)[0]
            if subject == object_:
                return None
        else:
            return None
        names = [r.name for s, r, o in facts if s == subject and o == object_]
        question = self._pick(words.RELATION_OF_PAIR).format(s=subject, o=object_)
        return self._ask(question, sentence.text), "、".join(names) or "没有关系"

    def _true_or_false(self, sentence: Sentence) -> Pair | None:
        if not sentence.facts:
            return None
        subject, relation, object_ = self._pick(sentence.facts)
        holds = self._random() < 0.5
        if not holds:
            subject, object_ = self._spoil(sentence, subject, relation.name, object_)
            if any(
                (s, r.name, o) == (subject, relation.name, object_) for s, r, o in sentence.facts
            ):
                return None
        statement = self._pick(words.STATEMENTS).format(s=subject, r=relation.name, o=object_)
        request, yes, no = self._pick(words.TRUE_OR_FALSE)
        return self._ask(request.format(c=statement), sentence.text), yes if holds else no

    def _spoil(self, sentence: Sentence, subject: str, relation: str, object_: str) -> Pair:
        """Another subject or object, from the sentence or made up."""
        others = [n for n, _ in sentence.mentions if n not in (subject, object_)]
        from_text = bool(others) and self._random() < 0.6
        other = self._pick(others) if from_text else self._names.draw("人物")
        chance = self._random()
        if chance < 0.2:
            return object_, subject
        return (other, object_) if chance < 0.5 else (subject, other)

    def _copy(self, sentence: Sentence) -> Pair | None:
        request, take = self._pick(_COPIES)
        answer = take(sentence.text)
        if answer is None or answer[0] in "(（":
            return None
        return self._ask(request, sentence.text), answer

    def _copy_list(self, sentence: Sentence) -> Pair:
        kind = self._pick(words.LIST_KINDS)
        names = [self._names.draw(kind) for _ in range(2 + int(self._random() * 4))]
        request, take = self._pick(_LISTS)
        return self._ask(request, self._pick(("、", "，", " ", "\n")).join(names)), take(names)

    def _fill_in(self, sentence: Sentence) -> Pair | None:
        if not sentence.facts:
            return None
        subject, relation, object_ = self._pick(sentence.facts)
        hidden = subject if self._random() < 0.5 else object_
        if sentence.text.count(hidden) != 1:
            return None
        gap = self._pick(("____", "【空】", "（ ）", "某某"))
        request = self._pick(words.FILL_IN).format(
            f=self._pick(words.STATEMENTS).format(s=subject, r=relation.name, o=object_), g=gap
        )
        return self._ask(request, sentence.text.replace(hidden, gap)), hidden

    def _write(self, sentence: Sentence) -> Pair | None:
        if not sentence.facts or len(sentence.facts) > 3:
            return None
        form = self._pick(FORMATS[:5])
        request = self._pick(words.WRITE)
        return self._ask(request, render_facts(form, sentence.facts, self._types)), sentence.text

    def _count(self, sentence: Sentence) -> Pair:
        if self._random() < 0.5:
            return self._ask(self._pick(words.COUNT_FACTS), sentence.text), str(len(sentence.facts))
        people = {name for name, kind in sentence.mentions if kind == "人物"}
        return self._ask(self._pick(words.COUNT_PEOPLE), sentence.text), str(len(people))


TASKS: tuple[tuple[str, float], ...] = (
    ("all_facts", 0.56),
    ("one_relation", 0.08),
    ("object_question", 0.07),
    ("subject_question", 0.03),
    ("entities", 0.06),
    ("relation_of_pair", 0.06),
    ("true_or_false", 0.03),
    ("copy", 0.03),
    ("copy_list", 0.03),
    ("fill_in", 0.02),
    ("write", 0.02),
    ("count", 0.01),
)
"""Every task and its share of the attempts; a task that a sentence does not allow is left out."""


def _in_order(sentence: Sentence) -> list[tuple[str, str]]:
    """Entities of a sentence, each once, by where they stand."""
    unique = dict(reversed(sentence.mentions))
    return sorted(unique.items(), key=lambda item: (sentence.text.find(item[0]), -len(item[0])))


def _last_part(text: str) -> str | None:
    parts = [part for part in text.replace("。", "，").split("，") if part]
    return parts[-1] if len(parts) > 1 else None


def _first_part(text: str) -> str | None:
    parts = text.split("，")
    return parts[0] if len(parts) > 1 else None


def _in_title_marks(text: str) -> str | None:
    return text[text.index("《") + 1 : text.index("》")] if "《" in text else None


def _behind_of(text: str) -> str | None:
    return text[text.index("的") + 1 :] if "的" in text[:-1] else None


_COPIES: tuple[tuple[str, Callable[[str], str | None]], ...] = (
    ("原样抄写下面的文字", lambda text: text),
    ("请复述一遍", lambda text: text),
    ("写出逗号之前的第一部分", _first_part),
    ("写出最后一个逗号之后的部分", _last_part),
    ("书名号里的内容是什么", _in_title_marks),
    ("写出第一个“的”字后面的文字", _behind_of),
    ("抄写前十个字", lambda text: text[:10] if len(text) > 12 else None),
    ("抄写最后八个字", lambda text: text[-8:] if len(text) > 10 else None),
)

_LISTS: tuple[tuple[str, Callable[[list[str]], str]], ...] = (
    ("把这些名字倒过来排列", lambda names: "、".join(reversed(names))),
    ("每行写一个名字", lambda names: "\n".join(names)),
    ("写出第一个名字", lambda names: names[0]),
    ("写出最后一个名字", lambda names: names[-1]),
    ("去掉第一个名字", lambda names: "、".join(names[1:])),
    ("每个名字加上方括号", lambda names: "".join(f"[{name}]" for name in names)),
    ("每个名字前加编号", lambda names: "\n".join(f"{n}. {x}" for n, x in enumerate(names, 1))),
    ("把第一个和最后一个名字用箭头连起来", lambda names: f"{names[0]} -> {names[-1]}"),
)


def _accumulate(weights: Sequence[float]) -> list[float]:
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return [value / total for value in sums]
