from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tripletune.data.readers import load_examples, read_examples
from tripletune.data.readers.problem import Problem
from tripletune.schema import Example, Span, Triplet


def write(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "uie.txt"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def ask(prompt: str, *results: dict[str, Any], content: str = "我的书的作者是甲") -> dict[str, Any]:
    return {"content": content, "prompt": prompt, "result_list": list(results)}


FOUND = {"text": "甲", "start": 7, "end": 8}


def test_relation_prompts_of_one_text_are_joined(tmp_path: Path) -> None:
    path = write(tmp_path, ask("我的书的作者", FOUND), ask("人物", FOUND), ask("我的书的译者"))
    (example,) = load_examples(path)
    assert example == Example("我的书的作者是甲", (Triplet("我的书", "作者", "甲"),))
    assert example.triplets[0].object_span == Span(7, 8)


def test_text_with_entity_prompts_only_gives_no_example(tmp_path: Path) -> None:
    path = write(tmp_path, ask("人物", content="x"), ask("甲的国籍", content="y"))
    found: list[Problem] = []
    assert list(read_examples(path, on_problem=found.append)) == [Example("y")]
    assert [(p.reason, p.action, p.line) for p in found] == [("entity_prompt", "changed", 1)]


def test_wrong_offsets_cost_the_span_only(tmp_path: Path) -> None:
    path = write(tmp_path, ask("我的书的作者", {**FOUND, "start": 6}))
    found: list[Problem] = []
    (example,) = read_examples(path, on_problem=found.append)
    assert example.triplets[0].object_span is None
    assert [p.reason for p in found] == ["offset_mismatch"]
