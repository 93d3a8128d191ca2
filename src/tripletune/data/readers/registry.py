"""The table of formats: name, how a file of it is recognised, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletune.data.readers.canonical import parse_canonical_record
from tripletune.data.readers.instruction import parse_instruction_record
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.data.readers.source import Head, iter_json
from tripletune.data.readers.spo import parse_spo_record
from tripletune.errors import DataError
from tripletune.schema import Example

__all__ = ["FORMATS", "Format", "get_format", "recognise_format"]

Matches = Callable[[Mapping[str, Any]], bool]
ParseRecord = Callable[[Mapping[str, Any], Problems], Iterator[Example]]


@dataclass(frozen=True, slots=True)
class Format:
    """One format family.

    Attributes:
        name: What `--format` takes.
        description: What its records look like.
        score: How many records at the head of a file are of this format; 0 is none.
        read: The examples of a file, one pass.
        fields: The fields its records need, for the message about an unknown file.
    """

    name: str
    description: str
    score: Callable[[Head], int]
    read: Callable[[Path, Problems], Iterator[Example]]
    fields: tuple[str, ...] = ()


def build_json_format(
    name: str, description: str, matches: Matches, parse: ParseRecord, *, fields: tuple[str, ...]
) -> Format:
    """A format whose records are JSON objects, each parsed on its own."""

    def score(head: Head) -> int:
        return sum(isinstance(record, Mapping) and matches(record) for record in head.records)

    def read(path: Path, problems: Problems) -> Iterator[Example]:
        for line, value in iter_json(path, problems):
            problems.line = line
            try:
                if not isinstance(value, Mapping):
                    raise RecordFault(
                        "not_an_object", f"{shorten(value)} is not a JSON object", value=value
                    )
                yield from parse(value, problems)
            except RecordFault as fault:
                problems.drop_record(
                    fault.reason,
                    f"{fault.message}; format {name!r} needs {description}",
                    value=fault.value or value,
                )

    return Format(name, description, score, read, fields)


def _has(*names: str) -> Matches:
    return lambda record: all(name in record for name in names)


def _is_spo(record: Mapping[str, Any]) -> bool:
    entries = record.get("spo_list")
    return (
        "text" in record
        and isinstance(entries, list)
        and not (entries and isinstance(entries[0], Mapping) and "h" in entries[0])
    )


FORMATS: tuple[Format, ...] = (
    build_json_format(
        "canonical",
        '{"text", "triplets": [{"subject", "relation", "object"}]}',
        _has("text", "triplets"),
        parse_canonical_record,
        fields=("text", "triplets"),
    ),
    build_json_format(
        "spo_list",
        '{"text", "spo_list": [{"subject", "predicate", "object"}]}',
        _is_spo,
        parse_spo_record,
        fields=("text", "spo_list"),
    ),
    build_json_format(
        "instruction",
        '{"instruction", "input", "output"} with an output of triplets',
        _has("input", "output"),
        parse_instruction_record,
        fields=("instruction", "input", "output"),
    ),
)
"""Every format, in the order of preference where two fit a file equally well."""


def get_format(name: str) -> Format:
    """The format of that name.

    Raises:
        DataError: there is none.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in FORMATS)
    raise DataError(f"format: {name!r} is unknown; accepted are {names}")


def recognise_format(head: Head) -> Format:
    """The format that fits most records at the head of a file.

    Raises:
        DataError: none fits.
    """
    scores = [known.score(head) for known in FORMATS]
    best = max(scores)
    if best:
        return FORMATS[scores.index(best)]
    raise DataError(_describe_unknown(head), path=head.path, line=None)


def _describe_unknown(head: Head) -> str:
    accepted = "; ".join(f"{known.name} {known.description}" for known in FORMATS)
    remedy = f"accepted are {accepted}. Bring it into one of these, or name one with the format"
    first = next((record for record in head.records if isinstance(record, Mapping)), None)
    if first is None:
        line = head.lines[0] if head.lines else ""
        return f"is of no known format: the first line is {shorten(line)}; {remedy}"
    present = set(first)
    near = max(FORMATS, key=lambda known: len(present & set(known.fields)))
    lacking = [name for name in near.fields if name not in present]
    missing = ""
    if present & set(near.fields) and lacking:
        missing = f"; for {near.name} it lacks {', '.join(map(repr, lacking))}"
    fields = ", ".join(map(repr, first)) or "none"
    return f"is of no known format: the first record has the fields {fields}{missing}; {remedy}"
