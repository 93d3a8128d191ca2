from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.data.subschemas import (
    find_hard_negatives,
    iter_prompted,
    sample_subschemas,
    split_relations,
)
from tripletune.errors import ConfigError
from tripletune.schema import Example, Triplet

PERSON = ("人物", "人物")
SCHEMA = RelationSchema(
    (
        Relation("父亲", (PERSON,)),
        Relation("母亲", (PERSON,)),
        Relation("作曲", (("歌曲", "人物"),)),
        Relation("作词", (("歌曲", "人物"),)),
        Relation("首都", (("国家", "城市"),)),
        Relation("面积", (("行政区", "Number"),)),
        Relation("气候", (("行政区", "气候"),)),
        Relation("海拔", (("地点", "Number"),)),
    )
)
EXAMPLE = Example("甲的父亲是乙", (Triplet("甲", "父亲", "乙"),))


def test_hard_negatives_share_types_or_wording() -> None:
    table = find_hard_negatives(SCHEMA)
    assert table["父亲"] == ("母亲", "作曲", "作词")
    assert table["首都"] == ()
    assert table["面积"] == ("气候", "海拔")


def build_example(names: Iterable[str], text: str = "t") -> Example:
    return Example(text, tuple(Triplet("a", name, "b") for name in sorted(names)))


def is_empty(example: Example, part: tuple[str, ...]) -> bool:
    return all(triplet.relation not in part for triplet in example.triplets)


def test_draw_depends_on_seed_and_text_alone() -> None:
    one = sample_subschemas(EXAMPLE, SCHEMA)
    assert one == sample_subschemas(Example(EXAMPLE.text, EXAMPLE.triplets, "id"), SCHEMA)
    others = {sample_subschemas(EXAMPLE, SCHEMA, seed=seed) for seed in range(20)}
    assert len(others) > 5
    others = {sample_subschemas(build_example(["父亲"], f"{n}"), SCHEMA) for n in range(20)}
    assert len(others) > 5


@given(
    st.sets(st.sampled_from([*SCHEMA.names, "未知"])),
    st.integers(1, 10),
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_prompts_are_those_with_own_relations_and_a_bounded_number_of_empty_ones(
    names: set[str], size: int, num_hard: int, num_empty: int, seed: int
) -> None:
    example = build_example(names)
    parts = sample_subschemas(
        example, SCHEMA, size=size, num_hard=num_hard, num_empty=num_empty, seed=seed
    )
    asked = [name for part in parts for name in part]
    assert len(asked) == len(set(asked))
    assert names <= set(asked) <= {*SCHEMA.names, *names}
    num_full = sum(not is_empty(example, part) for part in parts)
    whole = split_relations([*SCHEMA.names, *(names - set(SCHEMA.names))], size)
    assert len(parts) == min(len(whole), num_full + num_empty * max(1, num_full))
    left_out = Counter(map(len, whole))
    left_out.subtract(map(len, parts))
    assert min(left_out.values()) >= 0


def test_relations_of_the_text_do_not_change_how_the_schema_is_cut() -> None:
    for seed in range(20):
        one = sample_subschemas(EXAMPLE, SCHEMA, size=2, num_empty=9, seed=seed)
        other = build_example(["首都", "面积"], EXAMPLE.text)
        assert set(one) == set(sample_subschemas(other, SCHEMA, size=2, num_empty=9, seed=seed))


def test_half_of_the_texts_are_asked_just_as_at_extraction() -> None:
    at_extraction = {("父亲", "母亲", "作曲"), ("作词", "首都", "面积"), ("气候", "海拔")}
    asked = [
        set(sample_subschemas(EXAMPLE, SCHEMA, size=3, num_empty=2, seed=seed))
        for seed in range(200)
    ]
    assert 70 < asked.count(at_extraction) < 130


def test_look_alikes_are_often_neighbours_with_and_without_an_own_relation() -> None:
    schema = RelationSchema(tuple(SCHEMA)[::2] + tuple(SCHEMA)[1::2])
    assert {"作曲", "作词"} not in map(set, split_relations(schema.names, 2))
    together = Counter[bool]()
    for names in (["作曲"], ["首都"]):
        example = build_example(names)
        for seed in range(200):
            parts = sample_subschemas(example, schema, size=2, num_hard=1, num_empty=9, seed=seed)
            together.update(is_empty(example, p) for p in parts if set(p) == {"作曲", "作词"})
    assert together[True] == together[False] > 60


def test_empty_prompts_ask_for_look_alikes_and_for_others() -> None:
    seen = Counter[str]()
    for seed in range(100):
        own, *empty = sample_subschemas(EXAMPLE, SCHEMA, size=1, num_hard=1, num_empty=2, seed=seed)
        assert own == ("父亲",)
        assert empty[0] == ("母亲",)
        seen[empty[1][0]] += 1
    assert set(seen) == set(SCHEMA.names) - {"父亲", "母亲"}


def test_text_without_triplets_is_asked_for_what_it_does_not_have() -> None:
    prompted = list(iter_prompted(Example("无事"), SCHEMA, size=2, num_empty=3))
    assert [len(names) for _, names in prompted] == [2, 2, 2]
    assert not any(example.triplets for example, _ in prompted)


@pytest.mark.parametrize("names", [["父亲"], []])
def test_schema_smaller_than_a_prompt_is_asked_once(names: list[str]) -> None:
    parts = sample_subschemas(build_example(names), SCHEMA, size=9)
    assert [set(part) for part in parts] == [set(SCHEMA.names)]


def test_schema_of_own_relations_alone_leaves_nothing_empty() -> None:
    example = build_example(SCHEMA.names)
    parts = sample_subschemas(example, SCHEMA, size=2)
    assert len(parts) == 4
    assert not any(is_empty(example, part) for part in parts)


def test_prompted_examples_hold_what_their_prompt_asks_for() -> None:
    triplets = (
        Triplet("甲", "父亲", "乙"),
        Triplet("丙", "首都", "丁"),
        Triplet("乙", "父亲", "戊"),
    )
    prompted = list(iter_prompted(Example("t", triplets, "7"), SCHEMA, size=1, num_empty=1))
    answers = {names: example.triplets for example, names in prompted}
    assert answers[("父亲",)] == (triplets[0], triplets[2])
    assert answers[("首都",)] == (triplets[1],)
    assert sum(map(len, answers.values())) == 3
    assert {(example.text, example.id) for example, _ in prompted} == {("t", "7")}
    assert len(prompted) == 4


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("", ()),
        ("abc", (("a", "b", "c"),)),
        ("abcde", (("a", "b", "c", "d", "e"),)),
        ("abcdef", (("a", "b", "c", "d"), ("e", "f"))),
    ],
)
def test_split_relations_leaves_no_small_rest(names: str, parts: tuple[tuple[str, ...]]) -> None:
    assert split_relations(names, 4) == parts


def test_split_relations_names_a_wrong_size() -> None:
    with pytest.raises(ConfigError, match="relations_per_prompt: 0 is too few"):
        split_relations("ab", 0)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"num_hard": -1}, {"num_empty": 0}])
def test_wrong_sizes_are_named(wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} {value}"):
        sample_subschemas(EXAMPLE, SCHEMA, **wrong)
