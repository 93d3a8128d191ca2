from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.prompts import render_query
from tripletune.data.readers.instruction import (
    parse_context_record,
    parse_instruction_record,
    split_prompt,
)
from tripletune.data.readers.problem import Problems, RecordFault
from tripletune.schema import Example, Triplet

EXPECTED = Example("甲位于乙。", (Triplet("甲", "位于", "乙"),))


def test_instruction_record_is_read() -> None:
    record = {"instruction": "抽取", "input": "甲位于乙。", "output": "(甲, 位于, 乙)"}
    assert list(parse_instruction_record(record, Problems(Path("f")))) == [EXPECTED]


@pytest.mark.parametrize(
    "output", [[["甲", "位于", "乙"]], {"位于": [{"head": "甲", "tail": "乙"}]}]
)
def test_instruction_record_with_an_output_that_is_no_text(output: object) -> None:
    record = {"instruction": "抽取", "input": "甲位于乙。", "output": output}
    assert list(parse_instruction_record(record, Problems(Path("f")))) == [EXPECTED]


def test_instruction_record_with_the_text_in_the_instruction() -> None:
    record = {"instruction": "抽取：\n甲位于乙。", "input": "", "output": "(甲, 位于, 乙)"}
    assert list(parse_instruction_record(record, Problems(Path("f")))) == [EXPECTED]


def test_instruction_names_relations_that_hold_underscores_apart() -> None:
    record = {"instruction": '关系"组成"', "input": "a_b由c组成", "output": "a_b_组成_c"}
    (example,) = parse_instruction_record(record, Problems(Path("f")))
    assert example.triplets == (Triplet("a_b", "组成", "c"),)


def test_context_record_is_read_without_its_question() -> None:
    record = {
        "context": "Instruction: 回答。\nInput: 输出json：\n\n甲位于乙。\nAnswer: ",
        "target": '```json\n[{"subject": "甲", "predicate": "位于", "object": "乙"}]\n```',
    }
    assert list(parse_context_record(record, Problems(Path("f")))) == [EXPECTED]


def test_context_record_of_a_classification_is_told_apart() -> None:
    record = {"context": "Input: 类别：\n\n好吃\nAnswer: ", "target": '["水果"]'}
    with pytest.raises(RecordFault) as caught:
        list(parse_context_record(record, Problems(Path("f"))))
    assert caught.value.reason == "not_extraction"


@pytest.mark.parametrize("text", ["甲位于乙。", " 两边有空格 \n", "一：\n二", "\n前有空行"])
def test_split_prompt_gives_back_the_text_of_our_own_prompt_exactly(text: str) -> None:
    assert split_prompt(render_query(text))[1] == text
    assert split_prompt(render_query(text, relations=["位于", "作者"]))[1] == text


def test_split_prompt_does_not_guess() -> None:
    with pytest.raises(RecordFault, match="cannot be told from the question"):
        split_prompt("抽取三元组 甲位于乙。")
