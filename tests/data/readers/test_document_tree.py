from __future__ import annotations

from pathlib import Path
from typing import Any

from tripletune.data.readers.document_tree import parse_document_record
from tripletune.data.readers.problem import Problem, Problems
from tripletune.schema import Example, Triplet


def build(relations: list[dict[str, str]]) -> dict[str, Any]:
    first = {
        "entities": [{"entity_id": "T0", "entity": "二甲双胍", "entity_type": "Drug"}],
        "relations": [],
    }
    second = {
        "entities": [{"entity_id": "T1", "entity": "糖尿病", "entity_type": "Disease"}],
        "relations": relations,
    }
    paragraph = {
        "paragraph_id": "0",
        "paragraph": "二甲双胍。治糖尿病。",
        "sentences": [first, second],
    }
    return {"doc_id": "9", "paragraphs": [paragraph, {"paragraph": "空。", "sentences": []}]}


RELATION = {"relation_type": "Drug_Disease", "head_entity_id": "T0", "tail_entity_id": "T1"}


def test_document_relations_cross_sentences() -> None:
    found = list(parse_document_record(build([RELATION]), Problems(Path("f"))))
    assert found == [
        Example("二甲双胍。治糖尿病。", (Triplet("二甲双胍", "Drug_Disease", "糖尿病"),), "9-0"),
        Example("空。", (), "9-1"),
    ]
    assert found[0].triplets[0].subject_type == "Drug"


def test_document_reports_an_unknown_entity_and_an_unusable_paragraph() -> None:
    record = build([{**RELATION, "tail_entity_id": "T7"}, RELATION])
    record["paragraphs"][1] = {"paragraph": 3, "sentences": []}
    found: list[Problem] = []
    examples = list(parse_document_record(record, Problems(Path("f"), found.append)))
    assert [len(example.triplets) for example in examples] == [1]
    assert [(p.reason, p.action) for p in found] == [
        ("unknown_entity", "dropped triplet"),
        ("wrong_type", "dropped record"),
    ]
