from __future__ import annotations

import pytest

from tripletune.evaluation import Counts, compare, compare_files
from tripletune.schema import Example, Triplet


def example(text, *triplets):
    return Example(text, tuple(Triplet(*triplet) for triplet in triplets))


GOLD = [
    example(f"第{n}句", (f"甲{n}", "位于", f"乙{n}"), (f"甲{n}", "建于", "古代")) for n in range(12)
]
HALF = [Example(item.text, item.triplets[:1]) for item in GOLD]


def test_compare_finds_the_better_system():
    comparison = compare(HALF, GOLD, gold=GOLD)
    difference = comparison.differences["strict"]
    # F1 of A: 2 * 12 / (24 + 12).
    assert difference.value == pytest.approx(1 - 2 / 3)
    assert difference.p_value < 0.01
    assert (comparison.num_better, comparison.num_worse, comparison.num_texts) == (12, 0, 12)


def test_compare_names_the_changed_relations():
    assert compare(HALF, GOLD, gold=GOLD).find_changed_relations() == [
        ("建于", Counts(12, 0, 0), Counts(12, 12, 12))
    ]


def test_compare_counts_texts_that_only_one_system_has():
    extra = example("无关", ("甲", "位于", "乙"))
    comparison = compare([extra, *GOLD], [*GOLD, extra, extra], gold=GOLD)
    assert comparison.num_texts == 15
    assert comparison.first.strict == Counts(24, 25, 24)
    assert comparison.second.strict == Counts(24, 26, 24)
    assert comparison.differences["strict"].value == pytest.approx(48 / 50 - 48 / 49)
    # Each is empty where the other one alone has the text.
    assert (comparison.num_better, comparison.num_worse) == (1, 2)


def test_compare_of_equal_predictions_is_not_significant():
    comparison = compare(HALF, HALF, gold=GOLD)
    assert {rule: d.value for rule, d in comparison.differences.items()} == dict.fromkeys(
        ("strict", "duie", "normalised", "partial", "relation_only", "entity_pairs"), 0.0
    )
    assert comparison.differences["strict"].p_value == 1.0


def test_compare_files_agrees_with_compare(tmp_path):
    paths = []
    for name, examples in (("gold", GOLD), ("a", HALF), ("b", GOLD[:5])):
        paths.append(tmp_path / f"{name}.jsonl")
        lines = "".join(item.to_json() + "\n" for item in examples)
        paths[-1].write_text(lines, encoding="utf-8")
    assert (
        compare_files(*paths[1:], gold_path=paths[0]).to_dict()
        == compare(HALF, GOLD[:5], gold=GOLD).to_dict()
    )


def test_comparison_to_dict_holds_both_scores():
    record = compare(HALF, GOLD, gold=GOLD).to_dict()
    strict = record["rules"]["strict"]
    assert (strict["a"]["num_correct"], strict["b"]["num_correct"]) == (12, 24)
    assert strict["difference"]["is_significant"] is True
    assert [row["relation"] for row in record["changed_relations"]] == ["建于"]
