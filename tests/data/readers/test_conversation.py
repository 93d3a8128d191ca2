from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.conversation import (
    parse_messages_record,
    parse_prompt_record,
    parse_sharegpt_record,
)
from tripletune.data.readers.problem import Problems
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet

EXPECTED = Example("甲位于乙。", (Triplet("甲", "位于", "乙"),), "7")
QUESTION, ANSWER = "抽取三元组：\n甲位于乙。", "(甲, 位于, 乙)"


def test_messages_give_an_example_for_each_answered_question() -> None:
    turns = [
        {"role": "system", "content": "你是助手"},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "抽取三元组：\n无事。"},
        {"role": "assistant", "content": "无"},
    ]
    found = list(parse_messages_record({"id": 7, "messages": turns}, Problems(Path("f"))))
    assert found == [EXPECTED, Example("无事。")]


def test_sharegpt_turns_are_read() -> None:
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
    record = {"id": "7", "conversations": turns}
    assert list(parse_sharegpt_record(record, Problems(Path("f")))) == [EXPECTED]


@pytest.mark.parametrize("answer", ["response", "completion"])
def test_prompt_and_answer_are_read(answer: str) -> None:
    record = {"id": "7", "prompt": QUESTION, answer: ANSWER}
    assert list(parse_prompt_record(record, Problems(Path("f")))) == [EXPECTED]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "no user turn"),
        ([{"role": "user", "content": QUESTION}], "no user turn"),
        ([{"role": "assistant", "content": "x"}], "'assistant' stands where none"),
        ([{"role": ["x"], "content": "x"}], r"\['x'\] stands where none"),
        ([{"role": "user"}], "'content' is missing"),
    ],
)
def test_messages_name_a_wrong_turn(turns: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(parse_messages_record({"messages": turns}, Problems(Path("f"))))
