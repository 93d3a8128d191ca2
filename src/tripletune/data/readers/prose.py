"""PromptCBLUE lines: `{"input", "target", "answer_choices"}` with answers in prose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tripletune.data.readers.fields import add_triplet, build_example, get_text
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example, Triplet

__all__ = ["parse_prose_record"]

_RELATION = re.compile(r"具有(?P<relation>.+?)关系的头尾实体对如下[:：](?P<pairs>.*)", re.DOTALL)
_LINE_START = re.compile(r"\n(?=具有)")
_PAIR_START = re.compile(r"(?:^|(?<=。))头实体为")
_OBJECT_MARK = "，尾实体为"
_ANSWER_CUE = re.compile(r"\s*答案?[:：]?\s*\Z")
_ABOUT = re.compile("关系|实体|三元组")
_LEADING = re.compile(r"[^：:\n]{0,400}(?:关系|实体|三元组)[^：:？?。\n]*[：:？?。]")
_OPENING = re.compile("请|找|给|抽|提|根据|从|在|针对|需要|同时|识别|列|以下|下面|[你您]")
_CLOSING = re.compile(
    r"\s*(?:问题[:：].*(?:关系|实体|三元组)|[^：:。]{0,30}(?:关系|三元组)[^：:。]{0,12}[:：]"
    r"|.*(?:关系|实体|三元组).*[?？]\s*\Z)"
)
_QUESTION = re.compile(r"\s*问题[:：]|.*[?？]\s*\Z")
_LIST_MARKS = ("，", "、", ",", ", ", "；", "; ", ";")


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
    choices = record.get("answer_choices")
    names = [name for name in choices if isinstance(name, str)] if isinstance(choices, list) else []
    text = _take_text(get_text(record, "input"), names)
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


def _take_text(prompt: str, names: Sequence[str]) -> str:
    """The prompt without what asks: a question before the text, or questions and a list after it.

    The relation names stand either before the text or after it, never twice.
    """
    lines = [line for line in prompt.strip().split("\n") if line.strip()]
    while lines and _ANSWER_CUE.match(lines[-1]):
        lines.pop()
    if lines:
        end = _find_list(lines[0], names)
        rest = _take_leading(lines[0], end)
        if rest is not None:
            lines[:1] = [rest] if rest.strip() else []
        if rest is None or not end:
            lines = _drop_closing(lines, names, is_asked=rest is not None)
    if not lines:
        raise RecordFault(
            "empty_text", f"no text is left of {shorten(prompt)} without its question", value=prompt
        )
    return "\n".join(lines)


def _find_list(line: str, names: Sequence[str]) -> int:
    """Where the list of the relation names ends in a line; 0 when it is not there."""
    for mark in _LIST_MARKS:
        listed = mark.join(names)
        if listed and listed in line and _ABOUT.search(line.replace(listed, "")):
            return line.rindex(listed) + len(listed)
    return 0


def _take_leading(line: str, end: int) -> str | None:
    """What follows a question at the front of the first line; None when there is none."""
    if _OPENING.match(line) is None:
        return None
    match = _LEADING.match(line) if not end else re.match(r"[^：:？?。]*[：:？?。]", line[end:])
    if match is None:
        return None
    return line[end + match.end() :]


def _drop_closing(lines: list[str], names: Sequence[str], *, is_asked: bool) -> list[str]:
    """The lines without the list at their end and, unless it has been found, the question."""
    kept = list(lines)
    if len(kept) > 1 and _find_list(kept[-1], names):
        is_asked = is_asked or _QUESTION.match(kept[-1]) is not None
        kept.pop()
        if is_asked:
            return kept
    while len(kept) > 1 and _CLOSING.match(kept[-1]):
        kept.pop()
    return kept
