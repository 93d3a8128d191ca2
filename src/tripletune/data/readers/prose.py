"""PromptCBLUE lines: `{"input", "target", "answer_choices"}` with answers in prose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tripletune.data.readers.fields import add_triplet, build_example, get_text
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example, Triplet

__all__ = ["parse_prose_record"]

_RELATION = re.compile(r"具有(?P<relation>.+?)关系的头尾实体对如下[:：](?P<pairs>.*)", re.DOTALL)
_LINE_START = re.compile(r"\n(?=具有)")
_PAIR_START = re.compile(r"(?:^|(?<=。))头实体为")
_OBJECT_MARK = "，尾实体为"
_CUE = re.compile(
    r"^\s*(?:答案?[:：]?|三元组关系(?:选项|类型)?[:：].*|问题[:：].*|.*(?:关系|实体|三元组).*[?？:：])\s*$"
)
_LEADING_QUESTION = re.compile(
    r"^[^：:\n]{0,400}(?:关系类型|实体对|三元组|实体组)[^：:\n]*[：:](?=.)"
)


def parse_prose_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one record; records of other tasks than relation extraction are reported.

    The text is what remains of `input` without the lines that only ask, list relations or open
    the answer.
    """
    target = get_text(record, "target")
    triplets: list[Triplet] = []
    for part in _LINE_START.split(target):
        if part.strip():
            _add_pairs(triplets, problems, part)
    text = _take_text(get_text(record, "input"))
    yield build_example(problems, text, triplets, record.get("sample_id"))


def _add_pairs(triplets: list[Triplet], problems: Problems, part: str) -> None:
    match = _RELATION.match(part.strip())
    if match is None:
        raise RecordFault(
            "not_extraction",
            f"target {shorten(part)} is not '具有…关系的头尾实体对如下：头实体为…，尾实体为…。'",
            value=part,
        )
    for pair in _PAIR_START.split(match.group("pairs").strip())[1:]:
        subject, mark, object_ = pair.strip().partition(_OBJECT_MARK)
        if not mark:
            problems.drop_triplet(
                "unreadable_triplet", f"pair {shorten(pair)} has no {_OBJECT_MARK!r}", value=pair
            )
            continue
        add_triplet(
            triplets, problems, subject, match.group("relation"), object_.removesuffix("。")
        )


def _take_text(prompt: str) -> str:
    lines = [line for line in prompt.strip().split("\n") if _CUE.match(line) is None]
    if lines:
        lines[0] = _LEADING_QUESTION.sub("", lines[0], count=1)
    text = "\n".join(line for line in lines if line.strip())
    if not text.strip():
        raise RecordFault(
            "empty_text", f"no text is left of {shorten(prompt)} without its question", value=prompt
        )
    return text
