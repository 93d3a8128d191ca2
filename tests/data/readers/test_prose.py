from __future__ import annotations

from pathlib import Path

import pytest

from tripletune.data.readers.problem import Problem, Problems, RecordFault
from tripletune.data.readers.prose import parse_prose_record
from tripletune.schema import Triplet

TARGET = (
    "具有临床表现关系的头尾实体对如下：头实体为感冒，尾实体为发热。头实体为感冒，尾实体为咳嗽。\n"
    "具有相关（症状）关系的头尾实体对如下："
)
TEXT = "感冒@ 发热、咳嗽。 2.注意：休息"


@pytest.mark.parametrize(
    "prompt",
    [
        f"{TEXT}\n这个句子里面具有一定医学关系的实体组有哪些？\n三元组关系选项：临床表现，相关（症状）",
        f"给出句子中的临床表现，相关（症状）等关系类型的实体对：{TEXT}\n答：",
        f"给出句子中的临床表现，相关（症状）等关系类型的实体对：{TEXT}",
        f"{TEXT}\n问题：句子中的临床表现，相关（症状）等关系类型三元组是什么？",
        f"找出句子中的具有临床表现，相关（症状）关系类型的头尾实体对：\n{TEXT}\n答：",
        f"同时完成实体识别与关系识别：\n{TEXT}\n三元组关系类型：临床表现，相关（症状）\n答：",
    ],
)
def test_prose_takes_the_text_out_of_every_question(prompt: str) -> None:
    record = {"input": prompt, "target": TARGET, "sample_id": "s"}
    (example,) = parse_prose_record(record, Problems(Path("f")))
    assert example.text == TEXT
    assert example.triplets == (
        Triplet("感冒", "临床表现", "发热"),
        Triplet("感冒", "临床表现", "咳嗽"),
    )
    assert example.id == "s"


@pytest.mark.parametrize(
    "text", [TEXT, "问题：感冒的病因：病毒", "关系：一\n病因与症状的关系：二？"]
)
@pytest.mark.parametrize(
    "prompt",
    [
        "需要从这段话中抽取三元组：\n{}\n可能的实体关系有：病因、相关（症状）\n答：",
        "请抽取三元组。\n{}\n这段话的三元组类型是：病因，相关（症状）\n答：",
        "{}\n问题：上文中病因,相关（症状）三元组的内容\n答案：",
        "你能找出属于病因，相关（症状）类型的头尾实体对吗？\n{}\n答：",
        "抽取病因，相关（症状）类型的实体对：{}\n答：",
    ],
)
def test_prose_finds_the_question_by_the_relations_it_lists(prompt: str, text: str) -> None:
    record = {
        "input": prompt.format(text),
        "target": TARGET,
        "answer_choices": ["病因", "相关（症状）"],
    }
    (example,) = parse_prose_record(record, Problems(Path("f")))
    assert example.text == text


def test_prose_names_a_target_of_another_task() -> None:
    with pytest.raises(RecordFault, match="'阳性'"):
        list(parse_prose_record({"input": TEXT, "target": "阳性"}, Problems(Path("f"))))


def test_prose_reports_a_pair_it_cannot_read() -> None:
    found: list[Problem] = []
    target = "具有病因关系的头尾实体对如下：头实体为感冒。头实体为感冒，尾实体为病毒。"
    record = {"input": TEXT, "target": target}
    (example,) = parse_prose_record(record, Problems(Path("f"), found.append))
    assert example.triplets == (Triplet("感冒", "病因", "病毒"),)
    assert [p.reason for p in found] == ["unreadable_triplet"]


def test_prose_without_a_text_is_named() -> None:
    with pytest.raises(RecordFault, match="no text is left"):
        list(parse_prose_record({"input": "答：", "target": ""}, Problems(Path("f"))))
