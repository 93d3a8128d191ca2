from __future__ import annotations

import random

import pytest

from tripletune.data.generator.clauses import ClauseWriter
from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.names import NameSource
from tripletune.data.generator.sentences import Difficulty
from tripletune.data.generator.world import build_world

TYPES = {
    "图书": EntityType("图书", "图书", "图书", "《{}》", ("该书",), ("很好看",)),
    "人物": EntityType("人物", "人物", "人物", "{}", ("他",)),
    "城市": EntityType("城市", "地点", "城市"),
}
AUTHOR = Relation(
    "作者", "图书", "人物", ("作者",), ("{o}写了{s}",), ("由{o}写成",), ("{o}写的",), 3
)
BIRTH = Relation("出生地", "人物", "城市", (), ("{s}生于{o}",), ("出生在{o}",))


def build(*relations, **difficulty):
    stream = random.Random(1)
    names = NameSource("train", stream)
    world = build_world(Domain(TYPES, relations), names, stream.random)
    return ClauseWriter(world, names, stream.random, Difficulty(**difficulty))


def write_many(writer, count, times=300):
    for _ in range(times):
        facts, mentions = [], []
        text = writer.write(count, facts, mentions)
        yield text, [(s, relation.name, o) for s, relation, o in facts], mentions


def test_a_single_fact_stands_in_one_of_the_forms_of_its_relation():
    forms = set()
    for text, facts, mentions in write_many(build(AUTHOR, negation_rate=0), 1):
        ((book, relation, person),) = facts
        assert relation == "作者"
        assert mentions == [(book, "图书"), (person, "人物")]
        forms.add(text.replace(f"《{book}》", "S").replace(person, "O"))
    assert forms == {
        "O写了S",
        "O写的S很好看",
        "S由O写成",
        "S的作者是O",
        "S的作者为O",
        "S作者是O",
        "S作者为O",
        "S（作者：O）很好看",
    }


def test_a_list_of_objects_gives_a_fact_for_each():
    texts = set()
    for text, facts, _ in write_many(build(AUTHOR, list_rate=1, overlap_rate=0, nested_rate=0), 2):
        if len({subject for subject, _, _ in facts}) == 1:
            for place, (_, _, person) in enumerate(facts):
                text = text.replace(person, f"O{place}")
            texts.add(text.replace(f"《{facts[0][0]}》", "S"))
    assert "O0和O1写了S" in texts
    assert "S由O0、O1写成" in texts


def test_nested_facts_are_about_the_object():
    nested = 0
    for _, facts, _ in write_many(build(AUTHOR, BIRTH, nested_rate=1), 2):
        (_, first, person), (subject, second, _) = facts
        if subject == person:
            assert (first, second) == ("作者", "出生地")
            nested += 1
    # One sentence in five is made of two groups, each with a fact of its own.
    assert 200 < nested < 280


def test_denied_object_is_mentioned_but_no_fact():
    seen = 0
    for text, facts, mentions in write_many(build(AUTHOR, negation_rate=0.78), 1):
        if len(mentions) == 3:
            seen += 1
            denied = mentions[2][0]
            assert denied in text
            assert denied not in facts[0]
            assert any(word in text for word in ("不是", "并非", "其实"))
    assert seen > 100


def test_overlap_gives_shared_objects_and_pairs():
    kinds = set()
    for text, facts, _ in write_many(build(AUTHOR, overlap_rate=1, nested_rate=0), 2):
        subjects = {subject for subject, _, _ in facts}
        objects = {object_ for _, _, object_ in facts}
        kinds.add((len(subjects), len(objects)))
        if len(objects) == 1:
            assert any(word in text for word in ("都", "均", "同样"))
    assert kinds == {(2, 1), (2, 2)}


def test_dual_roles_give_two_relations_of_one_pair():
    editor = Relation("编者", "图书", "人物", ("编者",), ("{o}编了{s}",), ("由{o}编成",))
    pairs = [
        sorted(relation for _, relation, _ in facts)
        for _, facts, _ in write_many(build(AUTHOR, editor, overlap_rate=1, nested_rate=0), 2)
        if len({(s, o) for s, _, o in facts}) == 1
    ]
    assert pairs
    assert all(pair == ["作者", "编者"] for pair in pairs)


@pytest.mark.parametrize("count", range(1, 9))
def test_a_domain_with_one_relation_can_state_any_number_of_facts(count):
    for _, facts, _ in write_many(build(BIRTH), count, times=30):
        assert len(facts) == count


def test_write_doubtful_says_a_relation_and_notes_no_fact():
    mentions = []
    text = build(BIRTH).write_doubtful(mentions)
    assert [kind for _, kind in mentions] == ["人物", "城市"]
    assert text == f"{mentions[0][0]}生于{mentions[1][0]}"
