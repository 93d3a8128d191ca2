from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tripletune.evaluation
from tripletune.errors import DataError
from tripletune.evaluation import Counts, Settings, evaluate, evaluate_files
from tripletune.schema import Example, Extraction, Triplet

TEXT = "张三毕业于北京大学医学部，李四毕业于北京。"


def example(text, *triplets, identifier=None):
    return Example(text, tuple(Triplet(*triplet) for triplet in triplets), identifier)


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        # Exact: one whole point.
        ([("张三", "校", "北京大学")], [("张三", "校", "北京大学")], (1, 1, 1)),
        # One entity too short: one half.
        ([("张三", "校", "北京大学")], [("张三", "校", "北京")], (1, 1, 0.5)),
        # Both entities overlap: still one half.
        ([("张三", "校", "北京大学")], [("张", "校", "大学医学部")], (1, 1, 0.5)),
        # Another relation, another entity: nothing.
        ([("张三", "校", "北京大学")], [("张三", "工作于", "北京大学")], (1, 1, 0)),
        ([("张三", "校", "北京大学")], [("张三", "校", "医学部")], (1, 1, 0)),
        # An entity that is not in the text overlaps nothing, but may be equal.
        ([("张三", "校", "北京大学")], [("张三", "校", "北京大学堂")], (1, 1, 0)),
        ([("张先生", "校", "北京大学")], [("张先生", "校", "北京")], (1, 1, 0.5)),
        # A gold triplet is matched once; what is exact matches first.
        (
            [("张三", "校", "北京大学")],
            [("张三", "校", "北京"), ("张三", "校", "大学")],
            (1, 2, 0.5),
        ),
        (
            [("张三", "校", "北京大学")],
            [("张三", "校", "北京"), ("张三", "校", "北京大学")],
            (1, 2, 1),
        ),
        (
            [("张三", "校", "北京大学"), ("李四", "校", "北京")],
            [("张三", "校", "北京大学"), ("李四", "校", "北京大学")],
            (2, 2, 1.5),
        ),
    ],
)
def test_evaluate_gives_half_credit_for_overlap(gold, predicted, expected):
    evaluation = evaluate([example(TEXT, *gold)], [example(TEXT, *predicted)])
    assert evaluation.partial == Counts(*expected)


def test_evaluate_matches_the_published_dump(shared_dir):
    path = shared_dir / "datasets" / "duie1" / "casrel_gold_vs_pred_200.json"
    if not path.is_file():
        pytest.skip("the gold/prediction dump is not beside this checkout")
    content, position, items = path.read_text(encoding="utf-8").strip(), 0, []
    while position < len(content):
        item, end = json.JSONDecoder().raw_decode(content, position)
        items.append(item)
        position = end + len(content[end:]) - len(content[end:].lstrip())
    assert len(items) == 200
    gold, predicted = (
        [
            Example(item["text"], tuple(Triplet.from_record(record) for record in item[name]))
            for item in items
        ]
        for name in ("triple_list_gold", "triple_list_pred")
    )
    strict = evaluate(gold, predicted).strict
    assert strict == Counts(436, 449, 374)
    assert round(strict.f1, 4) == 0.8452


def test_evaluate_counts_a_missing_text_as_empty_and_reports_it():
    gold = [example("甲在乙", ("甲", "在", "乙")), example("丙在丁", ("丙", "在", "丁"))]
    predicted = [example("丙在丁", ("丙", "在", "丁")), example("戊在己", ("戊", "在", "己"))]
    evaluation = evaluate(gold, predicted)
    assert evaluation.strict == Counts(2, 2, 1)
    assert (evaluation.missing_texts, evaluation.extra_texts) == (("甲在乙",), ("戊在己",))
    assert (evaluation.num_texts, evaluation.num_exact) == (3, 1)


def test_evaluate_pairs_repeated_texts_in_order():
    gold = [example("它在乙", ("甲", "在", "乙")), example("它在乙", ("丙", "在", "乙"))]
    assert evaluate(gold, gold).strict == Counts(2, 2, 2)
    assert evaluate(gold, gold[::-1]).strict == Counts(2, 2, 0)


def test_evaluate_pairs_by_id_before_text():
    gold = [
        example("它在乙", ("甲", "在", "乙"), identifier="1"),
        example("它在乙", identifier="2"),
    ]
    assert evaluate(gold, gold[::-1]).strict == Counts(1, 1, 1)


def test_evaluate_counts_exact_texts():
    gold = [example("一", ("甲", "在", "乙")), example("二"), example("三", ("甲", "在", "乙"))]
    predicted = [example("一", ("甲", "在", "乙")), example("二"), example("三")]
    assert evaluate(gold, predicted).exact_match == pytest.approx(2 / 3)


def test_evaluate_nothing_is_undefined():
    evaluation = evaluate([], [])
    assert evaluation.exact_match is None
    assert {rule: counts.f1 for rule, counts in evaluation.scores.items()} == dict.fromkeys(
        ("strict", "duie", "normalised", "partial", "relation_only", "entity_pairs")
    )
    assert evaluation.to_dict()["strict"]["intervals"]["f1"] is None


def test_evaluate_reads_problems_and_confidence_of_extractions():
    gold = [example("甲在乙", ("甲", "在", "乙"))]
    predicted = [
        Extraction("甲在乙", (Triplet("甲", "在", "乙", confidence=0.75),), problems=("'(甲' ?",))
    ]
    evaluation = evaluate(gold, predicted)
    assert evaluation.errors.num_wrong == {"unparseable": 1}
    assert evaluation.calibration.expected_error == pytest.approx(0.25)


def test_evaluate_keeps_the_worst_texts_first():
    gold = [
        example("一", ("甲", "在", "乙")),
        example("二", ("甲", "在", "乙"), ("丙", "在", "丁")),
        example("三", ("甲", "在", "乙"), ("丙", "在", "丁")),
        example("四", ("甲", "在", "乙")),
    ]
    predicted = [
        example("一", ("甲", "在", "乙")),
        example("二", ("甲", "在", "乙")),
        example("三", ("甲", "是", "乙")),
    ]
    worst = evaluate(gold, predicted, settings=Settings(num_worst=2)).worst
    assert [result.to_dict() for result in worst] == [
        {
            "text": "三",
            "f1": 0.0,
            "correct": [],
            "missed": [
                {"subject": "甲", "relation": "在", "object": "乙"},
                {"subject": "丙", "relation": "在", "object": "丁"},
            ],
            "wrong": [{"subject": "甲", "relation": "是", "object": "乙"}],
        },
        {
            "text": "四",
            "f1": 0.0,
            "correct": [],
            "missed": [{"subject": "甲", "relation": "在", "object": "乙"}],
            "wrong": [],
        },
    ]


def test_evaluate_files_scores_what_evaluate_scores(tmp_path):
    gold = [example(TEXT, ("张三", "校", "北京大学")), example("《Up》", ("《Up》", "是", "片"))]
    predicted = [example("《Up》", ("up", "是", "片")), example(TEXT, ("张三", "校", "北京"))]
    for name, examples in (("gold", gold), ("pred", predicted)):
        lines = "".join(item.to_json() + "\n" for item in examples)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    from_files = evaluate_files(tmp_path / "gold.jsonl", tmp_path / "pred.jsonl")
    assert from_files.to_dict() == evaluate(gold, predicted).to_dict()
    assert from_files.duie == Counts(2, 2, 1)


def test_evaluate_files_names_the_bad_line(tmp_path):
    (tmp_path / "gold.jsonl").write_text('{"text": "甲", "triplets": []}\n', encoding="utf-8")
    (tmp_path / "pred.jsonl").write_text('{"text": "甲", "triplets": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"pred\.jsonl:1: triplets: 3 is not a list"):
        evaluate_files(tmp_path / "gold.jsonl", tmp_path / "pred.jsonl")


NAMES = st.sampled_from(["甲", "乙", "甲乙", "丙", "《甲》", "A", "a", "Ａ"])
RELATIONS = st.sampled_from(["在", "是"])
TRIPLETS = st.lists(st.builds(Triplet, NAMES, RELATIONS, NAMES), max_size=5)
TEXTS = st.lists(st.tuples(TRIPLETS, TRIPLETS), max_size=5)


def build(rows):
    text = "甲乙丙《甲》Aa"
    return tuple(
        [Example(f"{number}{text}", tuple(row[side])) for number, row in enumerate(rows)]
        for side in (0, 1)
    )


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_evaluate_laws_hold(rows):
    gold, predicted = build(rows)
    evaluation = evaluate(gold, predicted, settings=Settings(num_resamples=100))
    mirrored = evaluate(predicted, gold, settings=Settings(num_resamples=100))
    strict = evaluation.strict
    sets = [(set(g.triplets), set(p.triplets)) for g, p in zip(gold, predicted, strict=True)]
    assert strict == Counts(
        sum(len(g) for g, _ in sets),
        sum(len(p) for _, p in sets),
        sum(len(g & p) for g, p in sets),
    )
    for rule, counts in evaluation.scores.items():
        other = mirrored.scores[rule]
        assert (counts.precision, counts.recall) == (other.recall, other.precision)
    assert evaluation.partial.num_correct >= strict.num_correct
    errors = evaluation.errors
    assert errors.num_wrong.total() == strict.num_predicted - strict.num_correct
    assert errors.num_missed.total() == strict.num_gold - strict.num_correct
    assert sum(evaluation.by_relation.values(), Counts()) == strict
    assert sum((bucket.counts for bucket in evaluation.by_length), Counts()) == strict
    assert sum((bucket.counts for bucket in evaluation.by_num_triplets), Counts()) == strict


def test_package_exports_are_sorted_and_importable():
    exported = tripletune.evaluation.__all__
    assert exported == sorted(exported)
    assert [name for name in exported if not hasattr(tripletune.evaluation, name)] == []


def test_package_imports_neither_torch_nor_transformers():
    code = (
        "import sys, tripletune.evaluation\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
