"""Instruction files: `{"instruction", "input", "output"}` and `{"context", "target"}`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tripletune.data.readers.answer import parse_answer, take_relation_names
from tripletune.data.readers.fields import build_example, get_text
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example

__all__ = ["parse_context_record", "parse_instruction_record", "split_prompt"]

_CONTEXT = re.compile(
    r"\A(?:Instruction:.*?\n)?Input:\s*(?P<question>.*?)\n\s*\n(?P<text>.*?)\s*\n?Answer:\s*\Z",
    re.DOTALL,
)
_OWN_QUESTION = re.compile(r"\A请从以下文本中抽取三元组，格式为\(主体, 关系, 客体\)[^\n]*:\n")
_LABEL_END = re.compile(r"[:：]\s*\n|\n+")


def parse_instruction_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one `{"instruction", "input", "output"}` record.

    With an empty `input` the text is what follows the first line of the instruction.
    """
    instruction = record.get("instruction", "")
    if not isinstance(instruction, str):
        raise RecordFault("wrong_type", f"instruction: {shorten(instruction)} is not a string")
    text = get_text(record, "input")
    if not text.strip() and instruction.strip():
        instruction, text = split_prompt(instruction)
    answer = _get_answer(record)
    triplets = parse_answer(answer, problems, relations=take_relation_names(instruction))
    yield build_example(problems, text, triplets, record.get("id"))


def _get_answer(record: Mapping[str, Any]) -> str:
    """The output, also where it stands as a list or object and not as the text of one."""
    answer = record.get("output")
    if isinstance(answer, (list, dict)):
        return json.dumps(answer, ensure_ascii=False)
    return get_text(record, "output")


def parse_context_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one `{"context", "target"}` record.

    Records whose target is a class label are no extraction records and are reported as such.
    """
    context = get_text(record, "context")
    triplets = parse_answer(get_text(record, "target"), problems)
    match = _CONTEXT.match(context)
    if match is None:
        raise RecordFault(
            "missing_field",
            f"context: {shorten(context)} has no 'Input: <question>, empty line, <text>, Answer:'",
            value=context,
        )
    yield build_example(problems, match.group("text"), triplets, record.get("id"))


def split_prompt(prompt: str) -> tuple[str, str]:
    """The question and the text of a prompt that holds both.

    Raises:
        RecordFault: the prompt has one line only, so they cannot be told apart.
    """
    own = _OWN_QUESTION.match(prompt)
    if own is not None:
        return prompt[: own.end() - 1], prompt[own.end() :]
    match = _LABEL_END.search(prompt.strip())
    if match is None:
        raise RecordFault(
            "empty_text",
            f"the text cannot be told from the question in {shorten(prompt)}; needed is a line "
            "break between them",
            value=prompt,
        )
    prompt = prompt.strip()
    return prompt[: match.start()], prompt[match.end() :]
