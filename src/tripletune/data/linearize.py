r"""The target language: triplets as the text the model writes, and back.

One triplet a line, in the form the prompt asks for, in the order in which `arrange_triplets` finds
them in the text; nothing to extract is written `无`:

```
(苹果公司, 总部地点, 库比蒂诺)
(苹果公司, 创始人, 史蒂夫·乔布斯)
```

The text is split at line feeds and at comma-space, so exactly those are escaped inside an item:
a line feed as `\n`, a carriage return as `\r`, a comma before a space as `\,`, and the backslash
itself as `\\`. Everything else, brackets and quotes and full-width commas included, stands as it
is, so the usual item is never touched and `parse_target(render_target(x)) == x` for any triplets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tripletune.errors import DataError
from tripletune.schema import Span, Triplet

__all__ = [
    "EMPTY_TARGET",
    "ParsedTarget",
    "arrange_triplets",
    "parse_free",
    "parse_target",
    "render_target",
]

EMPTY_TARGET = "无"
"""The target text of a text that holds no triplet."""

_SEPARATOR = ", "
_ESCAPED = re.compile(r"\\|\n|\r|,(?= )")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", ",": "\\,"}
_UNESCAPED = re.compile(r"\\([\\nr,])")
_UNESCAPES = {"\\": "\\", "n": "\n", "r": "\r", ",": ","}
_ITEM_BREAK = re.compile(r"(?:[^\\]|\\.)*?(?=, |\Z)", re.DOTALL)
_NUMBERING = re.compile(r"^\s*(?:[-*•·]|\d+[.、)．]|[（(]\d+[)）](?=\s*[(（]))\s*")


@dataclass(frozen=True, slots=True)
class ParsedTarget:
    """What tolerant reading made of a model's output.

    Attributes:
        triplets: The triplets read, in order, each once.
        problems: One sentence for each piece of output that could not be read.
    """

    triplets: tuple[Triplet, ...]
    problems: tuple[str, ...]


def arrange_triplets(text: str, triplets: Iterable[Triplet]) -> tuple[Triplet, ...]:
    """Each triplet once, ordered by where its subject and then its object stand in the text.

    Data lists triplets in any order, and repeats them where only their further object slots
    differ; a model learns best what it can read off the text from left to right. Of equal triplets
    the first stays; an item without a span stands where the text first has it, or, if it does not
    have it, behind all others; triplets in the same places keep their order.

    Example:
        >>> given = [Triplet("丙", "在", "丁"), Triplet("甲", "在", "乙")]
        >>> [triplet.key for triplet in arrange_triplets("甲在乙，丙在丁。", [*given, *given])]
        [('甲', '在', '乙'), ('丙', '在', '丁')]
    """

    def find(item: str, span: Span | None) -> int:
        place = text.find(item) if span is None else span.start
        return place if place >= 0 else len(text)

    def locate(triplet: Triplet) -> tuple[int, int]:
        return (
            find(triplet.subject, triplet.subject_span),
            find(triplet.object, triplet.object_span),
        )

    return tuple(sorted(dict.fromkeys(triplets), key=locate))


def render_target(triplets: Iterable[Triplet]) -> str:
    """The target text of some triplets, in the order given.

    Example:
        >>> render_target([Triplet("苹果公司", "所属国家", "美国")])
        '(苹果公司, 所属国家, 美国)'
        >>> render_target([])
        '无'
    """
    lines = [f"({_SEPARATOR.join(_escape(item) for item in triplet.key)})" for triplet in triplets]
    return "\n".join(lines) if lines else EMPTY_TARGET


def parse_target(target: str) -> tuple[Triplet, ...]:
    r"""The triplets of a target text that follows the language exactly.

    Raises:
        DataError: the text is not in the target language; the message names the line.

    Example:
        >>> [triplet.key for triplet in parse_target("(甲, 位于, 乙)\n(丙, 位于, 乙)")]
        [('甲', '位于', '乙'), ('丙', '位于', '乙')]
    """
    if target == EMPTY_TARGET:
        return ()
    triplets = []
    for number, line in enumerate(target.split("\n"), 1):
        items = _split_line(line)
        if items is None or len(items) != 3:
            raise DataError(f"target line {number}: {line!r} is not '(subject, relation, object)'")
        subject, relation, object_ = map(_unescape, items)
        triplets.append(Triplet(subject, relation, object_))
    return tuple(triplets)


def parse_free(output: str) -> ParsedTarget:
    """What can be read from output that need not follow the language.

    Accepts full-width brackets and commas, a missing space after a comma, list numbering and
    surrounding prose lines. A line in brackets that does not split into three non-empty items is
    reported and never guessed at; a repeated triplet counts once.

    Example:
        >>> parse_free("1. （甲，位于，乙）").triplets[0].key
        ('甲', '位于', '乙')
        >>> parse_free("(甲, 乙)").problems
        ("'(甲, 乙)' has 2 items, not 3",)
    """
    triplets: dict[Triplet, None] = {}
    problems: list[str] = []
    for line in output.split("\n"):
        line = _NUMBERING.sub("", line).strip()
        if not line or line == EMPTY_TARGET:
            continue
        items = _split_line(line)
        if items is None or len(items) != 3:
            loose = _split_loosely(line)
            items = loose if items is None or (loose and len(loose) == 3) else items
        if items is None:
            problems.append(f"{line!r} is not in brackets")
        elif len(items) != 3:
            problems.append(f"{line!r} has {len(items)} items, not 3")
        elif not all(item.strip() for item in items):
            problems.append(f"{line!r} has an empty item")
        else:
            subject, relation, object_ = (_unescape(item).strip() for item in items)
            triplets[Triplet(subject, relation, object_)] = None
    return ParsedTarget(tuple(triplets), tuple(problems))


def _escape(item: str) -> str:
    return _ESCAPED.sub(lambda match: _ESCAPES[match.group()], item)


def _unescape(item: str) -> str:
    return _UNESCAPED.sub(lambda match: _UNESCAPES[match.group(1)], item)


def _split_line(line: str) -> Sequence[str] | None:
    """Still escaped items of a line in exact form, or None when it is not in brackets."""
    if len(line) < 2 or line[0] != "(" or line[-1] != ")":
        return None
    body, items, position = line[1:-1], [], 0
    while True:
        match = _ITEM_BREAK.match(body, position)
        if match is None:
            return None
        items.append(match.group())
        if match.end() >= len(body):
            return items
        position = match.end() + len(_SEPARATOR)


def _split_loosely(line: str) -> Sequence[str] | None:
    line = line.rstrip("，,;；。.")
    if len(line) < 2 or line[0] not in "(（" or line[-1] not in ")）":
        return None
    return [item.strip() for item in re.split(r"(?<!\\)[,，]", line[1:-1])]
