from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tripletune.data.readers.iepile import parse_iepile_record
from tripletune.data.readers.problem import Problems
from tripletune.errors import DataError
from tripletune.schema import Example


def build(schema: object, **answer: object) -> dict[str, Any]:
    question = {"instruction": "抽取", "schema": schema, "input": "文本"}
    record = {"instruction": json.dumps(question)}
    record.update({name: json.dumps(value) for name, value in answer.items()})
    return record


def keys(record: dict[str, Any]) -> list[tuple[str, ...]]:
    (example,) = parse_iepile_record(record, Problems(Path("f")))
    assert isinstance(example, Example)
    assert example.text == "文本"
    return [(*t.key, t.subject_type, t.object_type) for t in example.triplets]


def test_relation_answers_are_read_and_empty_ones_give_nothing() -> None:
    record = build(["主演", "作曲"], output={"主演": [{"head": "a", "tail": "b"}], "作曲": []})
    assert keys(record) == [("a", "主演", "b", "", "")]


def test_types_come_from_the_schema() -> None:
    schema = [{"subject_type": "书", "predicate": "作者", "object_type": "人"}]
    record = build(schema, output={"作者": [{"subject": "a", "object": "b"}]})
    assert keys(record) == [("a", "作者", "b", "书", "人")]


def test_entity_attributes_become_triplets() -> None:
    record = build([], output={"人物": {"甲": {"别名": "乙", "父母": ["丙", "丁"]}}})
    assert keys(record) == [
        ("甲", "别名", "乙", "人物", ""),
        ("甲", "父母", "丙", "人物", ""),
        ("甲", "父母", "丁", "人物", ""),
    ]


def test_test_files_have_a_list_of_labels() -> None:
    label = [{"head": "a", "relation": "r", "tail": "b", "head_type": "X", "tail_type": "Y"}]
    assert keys(build([], id="1", label=label)) == [("a", "r", "b", "X", "Y")]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"instruction": "{", "output": "{}"}, "instruction: '{' is not JSON"),
        (build([], output=3), "output: 3 is not a JSON object"),
        (build([], output={"r": 3}), "answer for 'r': 3"),
        (build([], output={"r": [3]}), "3 has no head and tail"),
        (build([], label={}), "label: {} is not a list"),
    ],
)
def test_unusable_records_are_named(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        keys(record)


@pytest.mark.parametrize("task", ["NER", "EE", "EEA"])
def test_records_of_other_tasks_are_no_negatives(task: str) -> None:
    record = {"task": task, **build(["人物"], output={"人物": []})}
    with pytest.raises(DataError, match=f"task '{task}' is not about relations"):
        list(parse_iepile_record(record, Problems(Path("f"))))


def test_answers_that_are_no_text_are_read() -> None:
    record = {**build(["r"]), "output": {"r": [{"head": "a", "tail": "b"}]}}
    assert keys(record) == [("a", "r", "b", "", "")]


def test_an_answer_that_names_a_relation_twice_is_named() -> None:
    record = {**build(["r"]), "output": '{"r": [{"head": "a", "tail": "b"}], "r": []}'}
    with pytest.raises(DataError, match="key 'r' stands twice"):
        keys(record)
