from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.answer import parse_answer, parse_json_answer, take_relation_names
from tripletune.data.readers.problem import Problem, Problems, RecordFault

A = ("甲", "位于", "乙")
B = ("丙", "位于", "丁")


def keys(answer: str, *relations: str) -> list[tuple[str, str, str]]:
    triplets = parse_answer(answer, Problems(Path("f")), relations=relations)
    return [triplet.key for triplet in triplets]


@pytest.mark.parametrize(
    "answer",
    [
        "(甲, 位于, 乙)\n(丙, 位于, 丁)",
        "1. （甲，位于，乙）\n2. （丙，位于，丁）",
        "甲_位于_乙\n丙_位于_丁",
        "(甲,位于,乙),(丙,位于,丁)",
        "（甲，位于，乙）；（丙，位于，丁）。",
        '[{"subject": "甲", "predicate": "位于", "object": "乙"}, ["丙", "位于", "丁"]]',
        '```json\n[{"head": "甲", "relation": "位于", "tail": "乙"}, '
        '{"主体": "丙", "关系": "位于", "客体": {"@value": "丁"}}]\n```',
        "[{'head': '甲', 'relation': '位于', 'tail': '乙'}, ('丙', '位于', '丁')]",
        '{"位于": [{"head": "甲", "tail": "乙"}, {"subject": "丙", "object": "丁"}]}',
        '{"三元组": [["甲", "位于", "乙"], {"subject": "丙", "relation": "位于", "object": "丁"}]}',
    ],
)
def test_answer_reads_every_form(answer: str) -> None:
    assert keys(answer) == [A, B]


@pytest.mark.parametrize("answer", ["", "无", "[]", " 没有\n", "```json\n[]\n```"])
def test_answer_without_triplets_is_empty(answer: str) -> None:
    assert keys(answer) == []


def test_answer_keeps_brackets_inside_an_item() -> None:
    assert keys("(a) (b, r, c)") == [("a) (b", "r", "c")]


def test_answer_in_the_target_language_is_one_triplet_though_it_looks_like_two() -> None:
    assert keys(r"(\\, ,)(, ,)") == [("\\", ",)(", ",")]


def test_answer_splits_at_a_relation_that_the_question_names() -> None:
    assert keys("a_b_组成_c", "组成") == [("a_b", "组成", "c")]


def test_answer_does_not_guess_where_an_underscored_line_splits() -> None:
    found: list[Problem] = []
    assert parse_answer("a_b_c_d", Problems(Path("f"), found.append)) == []
    assert [(p.reason, p.value) for p in found] == [("unreadable_triplet", "a_b_c_d")]


@pytest.mark.parametrize("answer", ['["水果"]', "正面", "7", '"x"', '["a", "b", "c"]'])
def test_answer_of_another_task_is_named(answer: str) -> None:
    with pytest.raises(RecordFault) as caught:
        keys(answer)
    assert caught.value.reason == "not_extraction"


def test_json_answer_names_broken_json() -> None:
    with pytest.raises(RecordFault, match="is not JSON"):
        parse_json_answer("[{]", Problems(Path("f")))


def test_json_answer_reads_types() -> None:
    source = (
        '[{"subject": "甲", "relation": "r", "object": "乙", "subject_type": "A", '
        '"object_type": "B"}]'
    )
    (triplet,) = parse_json_answer(source, Problems(Path("f")))
    assert (triplet.subject_type, triplet.object_type) == ("A", "B")


def test_relation_names_are_what_stands_in_quotation_marks() -> None:
    assert take_relation_names('关系为"性能故障", “组成”和 "性能故障"的三元组') == (
        "性能故障",
        "组成",
    )
