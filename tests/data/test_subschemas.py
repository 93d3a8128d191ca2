from __future__ import annotations

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


def test_positive_comes_with_its_hard_negative() -> None:
    parts = sample_subschemas(EXAMPLE, SCHEMA, size=2, num_hard=1, num_random=0)
    assert sorted(map(sorted, parts)) == [["母亲", "父亲"]]


def test_draw_depends_on_seed_and_text_alone() -> None:
    one = sample_subschemas(EXAMPLE, SCHEMA)
    assert one == sample_subschemas(Example(EXAMPLE.text, EXAMPLE.triplets, "id"), SCHEMA)
    others = {sample_subschemas(EXAMPLE, SCHEMA, seed=seed) for seed in range(20)}
    assert len(others) > 5


@given(
    st.sets(st.sampled_from([*SCHEMA.names, "未知"])),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_every_relation_is_asked_exactly_once(
    names: set[str], size: int, num_hard: int, num_random: int
) -> None:
    example = Example("t", tuple(Triplet("a", name, "b") for name in sorted(names)))
    parts = sample_subschemas(example, SCHEMA, size=size, num_hard=num_hard, num_random=num_random)
    asked = [name for part in parts for name in part]
    assert len(asked) == len(set(asked))
    assert names <= set(asked) <= {*SCHEMA.names, *names}
    assert len(asked) <= max(size, len(names) * (1 + num_hard) + num_random)
    assert all(len(part) == size for part in parts[:-1])
    assert all(size <= 2 * len(part) for part in parts) or len(parts) == 1
    assert len(parts[0]) >= min(size, len(set(SCHEMA.names) | names))


def test_prompted_examples_hold_what_their_prompt_asks_for() -> None:
    triplets = (
        Triplet("甲", "父亲", "乙"),
        Triplet("丙", "首都", "丁"),
        Triplet("乙", "父亲", "戊"),
    )
    prompted = list(iter_prompted(Example("t", triplets, "7"), SCHEMA, size=1, num_random=1))
    answers = {names: example.triplets for example, names in prompted}
    assert answers[("父亲",)] == (triplets[0], triplets[2])
    assert answers[("首都",)] == (triplets[1],)
    assert sum(map(len, answers.values())) == 3
    assert {(example.text, example.id) for example, _ in prompted} == {("t", "7")}
    assert len(prompted) > 2


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


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ConfigError, match="size 0"):
        sample_subschemas(EXAMPLE, SCHEMA, size=0)
