from __future__ import annotations

import random

import pytest

from tripletune.data.generator.domain import Domain, EntityType, Relation
from tripletune.data.generator.names import NameSource
from tripletune.data.generator.world import InventedWorld, TableWorld, build_world
from tripletune.errors import ConfigError

TYPES = {
    "图书": EntityType("图书", "图书", "图书", shared=True),
    "人物": EntityType("人物", "人物", "人物"),
    "城市": EntityType("城市", "地点", "城市"),
}
WROTE = Relation("作者", "图书", "人物", ("作者",), predicates=("由{o}写成",))
EDITED = Relation("编者", "图书", "人物", ("编者",), predicates=("由{o}编成",))
BORN = Relation("出生地", "人物", "城市", ("出生地",), predicates=("生于{o}",))
RELATIONS = (WROTE, EDITED, BORN)
FACTS = (
    ("夜航", WROTE.key, "甲"),
    ("夜航", WROTE.key, "乙"),
    ("夜航", EDITED.key, "甲"),
    ("晨星", WROTE.key, "甲"),
    ("甲", BORN.key, "临海"),
)


def build(facts=(), pool="train", types=TYPES):
    stream = random.Random(1)
    return build_world(Domain(types, RELATIONS, facts), NameSource(pool, stream), stream.random)


def owner(name):
    stream = random.Random(1)
    source = NameSource("train", stream, lists={"x": ((name,), False)})
    try:
        return "train" if source.draw("x") else ""
    except ConfigError:
        return "validation"


def test_build_world_takes_the_table_when_there_is_one():
    assert type(build()) is InventedWorld
    assert type(build(FACTS)) is TableWorld


def test_invented_objects_differ_from_each_other():
    world = build()
    option, subject = world.draw_about(1)
    objects = world.draw_objects(option, subject, 5)
    assert len(set(objects)) == 5
    assert subject not in objects


def test_invented_capacity_is_the_number_of_relations_of_the_type():
    world = build()
    assert (world.capacity("图书", "任何"), world.capacity("人物", "任何")) == (2, 1)


def test_next_option_ends_when_every_relation_is_used():
    world = build()
    assert world.next_option("人物", "甲", {"出生地"}) is None
    option = world.next_option("图书", "夜航", {"作者"})
    assert option.relation is EDITED


def test_table_states_only_its_facts():
    world = build(FACTS)
    stated = set()
    for _ in range(300):
        option, subject = world.draw_about(1)
        for name in world.draw_objects(option, subject, 3):
            stated.add((subject, option.relation.key, name))
    assert stated <= set(FACTS)
    assert {fact for fact in FACTS if fact[1] != BORN.key} <= stated


def test_table_lists_no_object_twice():
    world = build(FACTS)
    option = next(option for option in world.options if option.relation is WROTE)
    assert sorted(world.draw_objects(option, "夜航", 3)) == ["乙", "甲"]


def test_table_prefers_subjects_with_enough_relations():
    world = build(FACTS)
    subjects = {world.draw_about(2)[1] for _ in range(50)}
    assert subjects == {"夜航"}


def test_table_capacity_is_that_of_the_subject():
    world = build(FACTS)
    assert [world.capacity("图书", name) for name in ("夜航", "晨星", "其他")] == [2, 1, 0]


def test_table_finds_shared_objects_and_pairs():
    world = build(FACTS)
    option, subjects, name = world.draw_shared()
    assert (option.relation, sorted(subjects), name) == (WROTE, ["夜航", "晨星"], "甲")
    first, second, subject, object_ = world.draw_dual()
    assert {first.relation, second.relation} == {WROTE, EDITED}
    assert (subject, object_) == ("夜航", "甲")


def test_table_contrasts_facts_of_one_relation():
    world = build(FACTS)
    for _ in range(50):
        drawn = world.draw_contrast()
        if drawn is not None:
            option, subjects, objects = drawn
            assert option.relation is WROTE
            assert set(zip(subjects, objects, strict=True)) == {("夜航", "乙"), ("晨星", "甲")}


def test_table_nests_facts_about_an_object():
    types = {**TYPES, "人物": EntityType("人物", "人物", "人物", shared=True)}
    world = build(FACTS, types=types)
    for _ in range(20):
        option, _, middle = world.draw_nested()
        assert option.relation in (WROTE, EDITED)
        assert middle == "甲"


def test_table_wrong_object_is_not_among_the_facts():
    world = build(FACTS)
    option = next(option for option in world.options if option.relation is WROTE)
    assert world.draw_wrong(option, "晨星") == "乙"
    assert world.draw_wrong(option, "夜航") is None


def test_table_gives_each_pool_its_subjects():
    types = {**TYPES, "图书": EntityType("图书", "图书", "图书")}
    names = [f"书{number}" for number in range(40)]
    facts = tuple((name, WROTE.key, "甲") for name in names)
    drawn = {
        pool: {build(facts, pool, types).draw_about(1)[1] for _ in range(1)}
        | {
            subject
            for world in [build(facts, pool, types)]
            for subject in (world.draw_about(1)[1] for _ in range(400))
        }
        for pool in ("train", "validation")
    }
    assert drawn["train"] | drawn["validation"] == set(names)
    assert {name: owner(name) for name in names} == {
        name: "train" if name in drawn["train"] else "validation" for name in names
    }


def test_table_without_a_fact_for_the_pool_is_an_error():
    types = {**TYPES, "图书": EntityType("图书", "图书", "图书")}
    pool = "validation" if owner("夜航") == "train" else "train"
    with pytest.raises(
        ConfigError, match=f"none of the 1 facts has a subject in the pool '{pool}'"
    ):
        build(FACTS[:1], pool, types)
