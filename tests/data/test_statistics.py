from __future__ import annotations

import pytest

from tripletune.data.statistics import (
    FileStatistics,
    PairTable,
    compute_quantiles,
    find_similar_names,
)
from tripletune.schema import Example, Triplet


def test_figures_of_a_file() -> None:
    statistics = FileStatistics("f")
    statistics.add(Example("甲娶乙", (Triplet("甲", "妻", "乙"), Triplet("乙", "妻", "甲"))))
    statistics.add(Example("丙在丁", (Triplet("丙", "在", "丁", object_type="地点"),)))
    statistics.add(Example("无"))
    record = statistics.to_record()
    assert record == {
        "path": "f",
        "examples": 3,
        "triplets": 3,
        "examples_without_triplet": 1,
        "share_without_triplet": 1 / 3,
        "triplets_per_example": {0: 1, 1: 1, 2: 1},
        "relations": {"妻": 2, "在": 1},
        "directions": {
            "妻": {"subject_first": 1, "object_first": 1, "both_directions": 1},
            "在": {"subject_first": 1, "object_first": 0, "both_directions": 0},
        },
        "text_characters": {"min": 1, "median": 3, "p95": 3, "p99": 3, "max": 3, "mean": 7 / 3},
        "prompt_tokens": None,
        "target_tokens": None,
    }
    assert dict(statistics.type_pairs) == {("在", ("", "地点")): 1}


def test_quantiles_are_values_that_occur() -> None:
    assert compute_quantiles({1: 50, 2: 45, 10: 4, 99: 1}) == {
        "min": 1,
        "median": 1,
        "p95": 2,
        "p99": 10,
        "max": 99,
        "mean": 2.79,
    }
    assert compute_quantiles({}) is None


def test_pairs_with_several_relations_are_counted_and_their_relations_named() -> None:
    table = PairTable()
    for number in range(10):
        pair = (f"s{number}", f"o{number}")
        table.add(Example("t", (Triplet(pair[0], "担任", pair[1]),)))
        if number < 6:
            table.add(Example("t", (Triplet(pair[0], "任职", pair[1]),)))
    assert (table.num_pairs, table.num_ambiguous) == (10, 6)
    assert table.find_confusable() == [("任职", "担任", 6, 1.0)]
    assert table.find_confusable(min_pairs=7) == []


def test_pair_table_does_not_grow_beyond_its_limit() -> None:
    table = PairTable(limit=2)
    for number in range(5):
        table.add(Example("t", (Triplet(f"s{number}", "r", "o"),)))
    table.add(Example("t", (Triplet("s0", "q", "o"),)))
    assert (table.num_pairs, table.num_ambiguous) == (2, 1)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("总部地点", "总部 地点", True),
        ("Located", "located", True),
        ("出生地", "出生地点", True),
        ("收购", "被收购", False),
        ("被收购", "被拟收购", False),
        ("父亲", "母亲", False),
        ("作词", "作曲", False),
    ],
)
def test_similar_names(one: str, other: str, expected: bool) -> None:
    assert bool(find_similar_names([one, other])) is expected
