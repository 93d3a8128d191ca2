from __future__ import annotations

import pytest

from tripletune.evaluation.counts import Counts
from tripletune.evaluation.matching import (
    align_tables,
    count_by_rule,
    normalise_duie,
    normalise_name,
)
from tripletune.evaluation.pairing import pair_rows
from tripletune.evaluation.table import NameIndex, build_table
from tripletune.schema import Example, Triplet


def slotted(subject, relation, object_, **slots):
    return Triplet(subject, relation, object_, object_slots=tuple(slots.items()))


def count(gold, predicted, *, aliases=None):
    """Counts by rule of lists of triplet lists, one for each text."""
    names = NameIndex()
    tables = [
        build_table(
            [
                Example(
                    f"第{number}句",
                    tuple(t if isinstance(t, Triplet) else Triplet(*t) for t in triplets),
                )
                for number, triplets in enumerate(rows)
            ],
            names,
        )
        for rows in (gold, predicted)
    ]
    pairing = pair_rows(
        tables[0].ids,
        tables[0].texts,
        predicted_ids=tables[1].ids,
        predicted_texts=tables[1].texts,
    )
    return count_by_rule(align_tables(*tables, pairing), names, aliases=aliases)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Java", "java"),
        ("《红楼梦》", "红楼梦"),
        ("《《红楼梦》》", "《红楼梦》"),
        ("《红楼梦", "《红楼梦"),
        ("《甲》和《乙》", "甲》和《乙"),
        ("《》", ""),
        ("ＩＢＭ", "ｉｂｍ"),
    ],
)
def test_normalise_duie_lowers_and_drops_one_pair(name, expected):
    assert normalise_duie(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ＩＢＭ（中国）", "IBM(中国)"),
        ("iPhone\u300015 Pro", "iPhone15Pro"),
        ("“大黄蜂”", "大黄蜂"),
        ("「大黄蜂」", "大黄蜂"),
        ("\"大黄蜂'", "大黄蜂"),
        ("《红楼梦》", "《红楼梦》"),
        ("IBM", "IBM"),
        ("①", "1"),
        ("“ ”", "“ ”"),
    ],
)
def test_normalise_name_drops_width_spaces_and_quotes(name, expected):
    assert normalise_name(name) == expected


A, B = ("甲", "位于", "乙"), ("甲", "建于", "乙")

CASES = {
    # name: (gold, predicted, {rule: (gold, predicted, correct)})
    "equal": (
        [[A]],
        [[A]],
        {
            "strict": (1, 1, 1),
            "duie": (1, 1, 1),
            "normalised": (1, 1, 1),
            "relation_only": (1, 1, 1),
            "entity_pairs": (1, 1, 1),
        },
    ),
    "nothing on either side": ([[]], [[]], {"strict": (0, 0, 0), "duie": (0, 0, 0)}),
    "empty gold": ([[]], [[A]], {"strict": (0, 1, 0), "entity_pairs": (0, 1, 0)}),
    "empty prediction": ([[A]], [[]], {"strict": (1, 0, 0), "relation_only": (1, 0, 0)}),
    "a repeated triplet counts once": (
        [[A, A]],
        [[A, A, A]],
        {"strict": (1, 1, 1), "duie": (1, 1, 1), "normalised": (1, 1, 1)},
    ),
    "the same triplet in two texts counts twice": (
        [[A], [A]],
        [[A], []],
        {"strict": (2, 1, 1), "relation_only": (2, 1, 1)},
    ),
    "a triplet of another text is wrong": ([[A], [B]], [[B], [A]], {"strict": (2, 2, 0)}),
    "direction counts": (
        [[A]],
        [[("乙", "位于", "甲")]],
        {"strict": (1, 1, 0), "relation_only": (1, 1, 1), "entity_pairs": (1, 1, 0)},
    ),
    "the relation counts except for pairs": (
        [[A]],
        [[B]],
        {"strict": (1, 1, 0), "duie": (1, 1, 0), "entity_pairs": (1, 1, 1)},
    ),
    "two relations of a pair are one pair": (
        [[A, B]],
        [[A]],
        {"strict": (2, 1, 1), "entity_pairs": (1, 1, 1), "relation_only": (2, 1, 1)},
    ),
    "two pairs of a relation are one relation": (
        [[A, ("丙", "位于", "丁")]],
        [[("戊", "位于", "己")]],
        {"strict": (2, 1, 0), "relation_only": (1, 1, 1), "entity_pairs": (2, 1, 0)},
    ),
    "letter case": (
        [[("Java编程", "作者", "Bruce")]],
        [[("java编程", "作者", "bruce")]],
        {"strict": (1, 1, 0), "duie": (1, 1, 1), "normalised": (1, 1, 0)},
    ),
    "case of the relation counts under duie": (
        [[("甲", "CEO", "乙")]],
        [[("甲", "ceo", "乙")]],
        {"duie": (1, 1, 0), "normalised": (1, 1, 0)},
    ),
    "book title marks": (
        [[("红楼梦", "作者", "曹雪芹")]],
        [[("《红楼梦》", "作者", "曹雪芹")]],
        {"strict": (1, 1, 0), "duie": (1, 1, 1), "normalised": (1, 1, 0)},
    ),
    "two spellings become one": (
        [[("红楼梦", "作者", "曹雪芹"), ("《红楼梦》", "作者", "曹雪芹")]],
        [[("《红楼梦》", "作者", "曹雪芹")]],
        {"strict": (2, 1, 1), "duie": (1, 1, 1), "normalised": (2, 1, 1)},
    ),
    "width, spaces and quotes": (
        [[("ＩＢＭ 公司", "产品", "“深蓝”")]],
        [[("IBM公司", "产品", "深蓝")]],
        {"strict": (1, 1, 0), "duie": (1, 1, 0), "normalised": (1, 1, 1)},
    ),
    "width of the relation": (
        [[("甲", "A级", "乙")]],
        [[("甲", "Ａ级", "乙")]],
        {"strict": (1, 1, 0), "duie": (1, 1, 0), "normalised": (1, 1, 1)},
    ),
    "a slot is missing": (
        [[slotted("甲", "票房", "8亿", inArea="中国")]],
        [[("甲", "票房", "8亿")]],
        {"strict": (1, 1, 1), "duie": (1, 1, 0), "normalised": (1, 1, 1)},
    ),
    "a slot has another value": (
        [[slotted("甲", "票房", "8亿", inArea="中国")]],
        [[slotted("甲", "票房", "8亿", inArea="美国")]],
        {"strict": (1, 1, 1), "duie": (1, 1, 0)},
    ),
    "a slot has another name": (
        [[slotted("甲", "获奖", "金奖", onDate="1990")]],
        [[slotted("甲", "获奖", "金奖", period="1990")]],
        {"strict": (1, 1, 1), "duie": (1, 1, 0)},
    ),
    "slots in another order, case and with title marks": (
        [[slotted("甲", "配音", "乙", inWork="Up", inArea="美国")]],
        [[slotted("甲", "配音", "乙", inArea="美国", inWork="《up》")]],
        {"strict": (1, 1, 1), "duie": (1, 1, 1)},
    ),
    "triplets that differ in a slot are two under duie": (
        [
            [
                slotted("甲", "获奖", "金奖", onDate="1990"),
                slotted("甲", "获奖", "金奖", onDate="1991"),
            ]
        ],
        [[slotted("甲", "获奖", "金奖", onDate="1990")]],
        {"strict": (1, 1, 1), "duie": (2, 1, 1), "normalised": (1, 1, 1)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_count_by_rule_agrees_with_hand_counts(case):
    gold, predicted, expected = CASES[case]
    counted = count(gold, predicted)
    assert {rule: counted[rule].total() for rule in expected} == {
        rule: Counts(*numbers) for rule, numbers in expected.items()
    }


def test_count_by_rule_compares_aliases_under_duie_only():
    gold = [[("北京大学", "位于", "北京")], [("清华", "位于", "北京")]]
    predicted = [[("北大", "位于", "北京")], [("清华", "位于", "北京")]]
    counted = count(gold, predicted, aliases={"北大": frozenset({"北京大学"})})
    assert counted["strict"].total() == Counts(2, 2, 1)
    # Seen from the prediction 北大 is 北京大学; seen from gold the file has no alias.
    assert counted["duie"].total() == Counts(2, 2, 2, num_found=1)


def test_count_by_rule_merges_alias_duplicates_and_looks_into_slots():
    both_ways = {"北大": frozenset({"北京大学"}), "北京大学": frozenset({"北大"})}
    gold = [[slotted("张三", "获奖", "金奖", inArea="北大")]]
    predicted = [
        [
            slotted("张三", "获奖", "金奖", inArea="《北京大学》"),
            slotted("张三", "获奖", "金奖", inArea="北大"),
        ]
    ]
    assert count(gold, predicted, aliases=both_ways)["duie"].total() == Counts(1, 1, 1, 1)


def test_count_by_rule_gives_counts_of_each_text():
    counted = count([[A, B], [], [A]], [[A], [B], [A]])["strict"]
    assert counted.gold.tolist() == [2, 0, 1]
    assert counted.predicted.tolist() == [1, 1, 1]
    assert counted.correct.tolist() == [1, 0, 1]
