"""Triplets in an answer text: bracketed lines, `subject_relation_object` lines, or JSON."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from tripletune.data.linearize import EMPTY_TARGET, parse_free, parse_target
from tripletune.data.readers.document import RepeatedKeyError, has_lone_surrogate, load_json
from tripletune.data.readers.fields import add_triplet
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.errors import DataError
from tripletune.schema import Triplet

__all__ = ["parse_answer", "parse_json_answer", "take_relation_names"]

_FENCE = re.compile(r"\A\s*```[A-Za-z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
_EMPTY_ANSWERS = frozenset({"", EMPTY_TARGET, "[]", "{}", "没有", "None", "none", "NULL", "null"})
_QUOTED = re.compile(r"[\"“'‘]([^\"“”'‘’\n]{1,30})[\"”'’]")
_GROUP = re.compile(r"[(（][^()（）]*[)）]")
_GROUPS = re.compile(rf"\s*{_GROUP.pattern}(?:\s*[,，;；、]?\s*{_GROUP.pattern})+\s*[。.]?\s*\Z")
_COMMA = re.compile("[,，]")
_SUBJECTS = ("subject", "head", "主体", "头实体", "主语")
_RELATIONS = ("relation", "predicate", "关系", "谓语", "type")
_OBJECTS = ("object", "tail", "客体", "尾实体", "宾语")


def parse_answer(
    answer: str, problems: Problems, *, relations: Collection[str] = ()
) -> list[Triplet]:
    """The triplets that an answer states, in order, repeats included where they can be told.

    Args:
        answer: Lines `(s, r, o)`, lines `s_r_o`, or JSON, fenced or not.
        problems: Told about pieces that cannot be read.
        relations: Relation names that the question lists; they settle where `s_r_o` splits when an
            item itself holds an underscore.

    Raises:
        RecordFault: the answer is of another kind, such as a class label.
    """
    stripped = answer.strip()
    if stripped in _EMPTY_ANSWERS:
        return []
    fenced = _FENCE.match(answer)
    if fenced is not None or stripped[0] in "[{":
        return parse_json_answer(fenced.group(1) if fenced is not None else stripped, problems)
    lines = [line for line in stripped.split("\n") if line.strip()]
    if "_" in lines[0] and lines[0].strip()[0] not in "(（":
        return _parse_underscored(lines, problems, relations)
    answer = "\n".join(_split_groups(line) for line in lines)
    exact = _parse_exact(answer)
    if exact is not None:
        return exact
    parsed = parse_free(answer)
    if not parsed.triplets and parsed.problems:
        raise RecordFault(
            "not_extraction",
            f"the answer {shorten(stripped)} holds no triplet; needed are lines (s, r, o), lines "
            "s_r_o, or a JSON list of triplets",
            value=stripped,
        )
    for problem in parsed.problems:
        problems.drop_triplet("unreadable_triplet", f"answer line {problem}", value=problem)
    return list(parsed.triplets)


def parse_json_answer(source: str, problems: Problems) -> list[Triplet]:
    """The triplets of a JSON list of objects (or lists of three), under any usual key names.

    Raises:
        RecordFault: it is not JSON, or holds something other than triplets.
    """
    value = _load_answer(source)
    if has_lone_surrogate(source, value):
        raise RecordFault("lone_surrogate", f"half a surrogate pair in {shorten(source)}")
    entries = _list_entries(value)
    if not isinstance(entries, list):
        raise RecordFault("not_extraction", f"the answer {shorten(source)} is no list of triplets")
    if entries and all(isinstance(entry, str) for entry in entries):
        raise RecordFault(
            "not_extraction",
            f"the answer {shorten(source)} is a list of labels, not of triplets",
            value=source,
        )
    triplets: list[Triplet] = []
    for entry in entries:
        _add_entry(triplets, entry, problems)
    return triplets


def _load_answer(source: str) -> Any:
    """The value of a JSON answer, or of one that Python wrote with its own quotation marks."""
    try:
        return load_json(source)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, RepeatedKeyError):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                return ast.literal_eval(source.strip())
        raise RecordFault(
            "broken_json", f"the answer {shorten(source)} is not JSON: {error}", value=source
        ) from error


def _list_entries(value: object) -> object:
    """The triplets of an answer that may be one, a list, or lists under names.

    Under the name of a relation stand pairs, under any other name (`triplets`, 三元组) triplets.
    """
    if not isinstance(value, Mapping):
        return value
    if any(_find(value, names) is not None for names in (_SUBJECTS, _OBJECTS)):
        return [value]
    entries: list[object] = []
    for name, listed in value.items():
        for entry in listed if isinstance(listed, list) else [listed]:
            is_pair = isinstance(entry, Mapping) and _find(entry, _RELATIONS) is None
            entries.append({**entry, "relation": name} if is_pair else entry)
    return entries


def take_relation_names(question: str) -> tuple[str, ...]:
    """The names that a question puts in quotation marks, in order."""
    return tuple(dict.fromkeys(_QUOTED.findall(question)))


def _split_groups(line: str) -> str:
    """A line of several triplets in brackets, `(s,r,o),(s,r,o)`, as one line each.

    One triplet in the target language stays one, whatever brackets its items hold.
    """
    if _GROUPS.match(line) is None or _parse_exact(line) is not None:
        return line
    groups = _GROUP.findall(line)
    if any(len(_COMMA.split(group)) != 3 for group in groups):
        return line
    return "\n".join(groups)


def _parse_exact(answer: str) -> list[Triplet] | None:
    """The triplets of an answer in the target language to the letter, or None."""
    try:
        return list(parse_target(answer))
    except DataError:
        return None


def _add_entry(triplets: list[Triplet], entry: object, problems: Problems) -> None:
    if isinstance(entry, (list, tuple)) and len(entry) == 3:
        add_triplet(triplets, problems, *entry)
        return
    items = None
    if isinstance(entry, Mapping):
        items = [_find(entry, names) for names in (_SUBJECTS, _RELATIONS, _OBJECTS)]
    if not isinstance(entry, Mapping) or items is None or None in items:
        problems.drop_triplet(
            "missing_field", f"{shorten(entry)} has no subject, relation and object", value=entry
        )
        return
    value = items[2]
    if isinstance(value, Mapping):
        value = value.get("@value", "")
    add_triplet(
        triplets,
        problems,
        items[0],
        items[1],
        value,
        subject_type=_as_type(entry, "subject_type"),
        object_type=_as_type(entry, "object_type"),
    )


def _find(entry: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((entry[name] for name in names if name in entry), None)


def _as_type(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""


def _parse_underscored(
    lines: list[str], problems: Problems, relations: Collection[str]
) -> list[Triplet]:
    triplets: list[Triplet] = []
    for line in lines:
        items = _split_underscored(line, relations)
        if items is None:
            problems.drop_triplet(
                "unreadable_triplet",
                f"answer line {shorten(line)} does not split into subject_relation_object",
                value=line,
            )
        else:
            add_triplet(triplets, problems, *items)
    return triplets


def _split_underscored(line: str, relations: Collection[str]) -> list[str] | None:
    parts = line.split("_")
    if len(parts) == 3:
        return parts
    places = [i for i in range(1, len(parts) - 1) if parts[i] in relations]
    if len(places) != 1:
        return None
    return ["_".join(parts[: places[0]]), parts[places[0]], "_".join(parts[places[0] + 1 :])]
