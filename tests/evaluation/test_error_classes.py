from __future__ import annotations

import pytest

from tripletune.evaluation import Settings, evaluate
from tripletune.evaluation.error_classes import (
    ERROR_CLASSES,
    ErrorSummary,
    TripletError,
    classify_errors,
)
from tripletune.evaluation.spans import match_partially
from tripletune.schema import Example, Extraction, Triplet

TEXT = "张三毕业于北京大学医学部，李四出生于上海。"
SCHOOL = ("张三", "毕业院校", "北京大学")
BIRTH = ("李四", "出生地", "上海")


def classify(gold, predicted, schema=None):
    missed = [key for key in gold if key not in predicted]
    wrong = [key for key in predicted if key not in gold]
    near = match_partially(TEXT, missed, wrong)
    return classify_errors(TEXT, gold=gold, missed=missed, wrong=wrong, near=near, schema=schema)


@pytest.mark.parametrize(
    ("wrong", "error_class"),
    [
        (("北京大学", "毕业院校", "张三"), "swapped_direction"),
        (("张三", "工作单位", "北京大学"), "wrong_relation"),
        (("张三", "毕业院校", "北京大学医学部"), "boundary_too_long"),
        (("张三毕业", "毕业院校", "北京大学"), "boundary_too_long"),
        (("张三", "毕业院校", "北京"), "boundary_too_short"),
        (("张", "毕业院校", "北京大学医学部"), "boundary_too_short"),
        # Shifted: part of the gold object is left out.
        (("张三", "毕业院校", "大学医学部"), "boundary_too_short"),
    ],
)
def test_classify_errors_links_a_wrong_triplet_to_the_missed_one(wrong, error_class):
    assert classify([SCHOOL], [wrong]) == [TripletError(error_class, wrong, SCHOOL)]


@pytest.mark.parametrize(
    ("wrong", "error_class"),
    [
        (("张三", "毕业院校", "清华大学"), "entity_not_in_text"),
        (("王五", "毕业院校", "北京大学"), "entity_not_in_text"),
        (("李四", "毕业院校", "上海"), "spurious"),
        # Overlapping entities with another relation.
        (("张三", "工作单位", "北京"), "spurious"),
        # Swapped and another relation.
        (("北京大学", "校友", "张三"), "spurious"),
    ],
)
def test_classify_errors_leaves_an_unexplained_gold_triplet_missed(wrong, error_class):
    assert classify([SCHOOL], [wrong]) == [
        TripletError(error_class, wrong),
        TripletError("missed", gold=SCHOOL),
    ]


def test_classify_errors_without_predictions_are_missed():
    assert classify([SCHOOL, BIRTH], []) == [
        TripletError("missed", gold=SCHOOL),
        TripletError("missed", gold=BIRTH),
    ]


def test_classify_errors_checks_the_schema_first():
    wrong = ("张三", "就读", "北京大学")
    assert classify([SCHOOL], [wrong], schema={"毕业院校"}) == [
        TripletError("relation_not_in_schema", wrong, SCHOOL)
    ]
    assert classify([SCHOOL], [wrong], schema={"就读"}) == [
        TripletError("wrong_relation", wrong, SCHOOL)
    ]


def test_classify_errors_compares_with_gold_triplets_that_were_found():
    swapped = ("北京大学", "毕业院校", "张三")
    longer = ("张三", "毕业院校", "北京大学医学部")
    assert classify([SCHOOL], [SCHOOL, swapped, longer]) == [
        TripletError("swapped_direction", swapped),
        TripletError("boundary_too_long", longer),
    ]


def test_classify_errors_links_each_missed_triplet_once():
    first, second = ("张三", "毕业院校", "北京"), ("张三", "毕业院校", "大学")
    assert classify([SCHOOL], [first, second]) == [
        TripletError("boundary_too_short", first, SCHOOL),
        TripletError("boundary_too_short", second),
    ]


def test_classify_errors_prefers_the_pair_to_the_boundary():
    other = ("张三", "工作单位", "北京大学")
    near = ("张三", "毕业院校", "北京")
    assert classify([SCHOOL], [near, other]) == [
        TripletError("wrong_relation", other, SCHOOL),
        TripletError("boundary_too_short", near),
    ]


def test_error_summary_counts_classes_and_confusions():
    wrong = ("张三", "工作单位", "北京大学")
    summary = ErrorSummary()
    summary.add(TEXT, classify([SCHOOL, BIRTH], [wrong]))
    summary.add(TEXT, [TripletError("unparseable", output="(张三, 在)")])
    assert dict(summary.num_wrong) == {"wrong_relation": 1, "unparseable": 1}
    assert dict(summary.num_missed) == {"wrong_relation": 1, "missed": 1}
    assert dict(summary.confusion) == {("毕业院校", "工作单位"): 1}


def test_error_summary_keeps_few_examples_from_different_texts():
    summary = ErrorSummary(max_examples=2)
    errors = [TripletError("missed", gold=SCHOOL), TripletError("missed", gold=BIRTH)]
    texts = [f"第{number}句" for number in range(3)]
    for text in texts:
        summary.add(text, errors)
    assert summary.examples == {"missed": [(texts[0], errors[0]), (texts[1], errors[0])]}
    assert summary.num_missed["missed"] == 6


def test_error_summary_to_dict_lists_every_class():
    summary = ErrorSummary()
    summary.add(
        TEXT, [TripletError("wrong_relation", ("张三", "在", "上海"), ("张三", "生于", "上海"))]
    )
    record = summary.to_dict()
    assert list(record["classes"]) == list(ERROR_CLASSES)
    assert record["classes"]["wrong_relation"] == {
        "num_wrong": 1,
        "num_missed": 1,
        "examples": [
            {
                "text": TEXT,
                "error_class": "wrong_relation",
                "predicted": {"subject": "张三", "relation": "在", "object": "上海"},
                "gold": {"subject": "张三", "relation": "生于", "object": "上海"},
            }
        ],
    }
    assert record["confusion"] == [{"gold": "生于", "predicted": "在", "count": 1}]


def test_evaluate_counts_every_class_once():
    gold = [Example(TEXT, (Triplet(*SCHOOL), Triplet(*BIRTH)))]
    predicted = [
        Extraction(
            TEXT,
            (Triplet("张三", "毕业院校", "北京大学医学部"), Triplet("上海", "出生地", "李四")),
            problems=("'(张三' is not in brackets",),
        )
    ]
    errors = evaluate(gold, predicted, settings=Settings(schema={"毕业院校", "出生地"})).errors
    expected = {"boundary_too_long": 1, "swapped_direction": 1}
    assert dict(errors.num_wrong) == {**expected, "unparseable": 1}
    assert dict(errors.num_missed) == expected
