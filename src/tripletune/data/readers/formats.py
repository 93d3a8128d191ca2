"""What a format is, and how a stream of JSON records of one becomes examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletune.data.readers.grouping import group_by_text
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.data.readers.source import Head, iter_json
from tripletune.schema import Example

__all__ = ["Format", "Matches", "ParseRecord", "RecordForm", "build_json_format", "parse_values"]

Matches = Callable[[Mapping[str, Any]], bool]
ParseRecord = Callable[[Mapping[str, Any], Problems], Iterator[Example]]


@dataclass(frozen=True, slots=True)
class RecordForm:
    """How the JSON records of a format are recognised and parsed.

    Attributes:
        fields: The fields a record needs, for the message about an unknown file.
        matches: Whether a JSON object is a record of this format.
        parse: The examples of a record.
        is_grouped: Whether the records of one text are joined into one example.
    """

    fields: tuple[str, ...]
    matches: Matches
    parse: ParseRecord
    is_grouped: bool


@dataclass(frozen=True, slots=True)
class Format:
    """One format family.

    Attributes:
        name: What `--format` takes.
        description: What its records look like.
        score: How many records at the head of a file are of this format; 0 is none.
        read: The examples of a file, one pass.
        form: How its records are parsed; None for formats that are not made of JSON objects.
    """

    name: str
    description: str
    score: Callable[[Head], int]
    read: Callable[[Path, Problems], Iterator[Example]]
    form: RecordForm | None = None


def build_json_format(
    name: str,
    description: str,
    matches: Matches,
    parse: ParseRecord,
    *,
    fields: tuple[str, ...],
    is_grouped: bool = False,
) -> Format:
    """A format whose records are JSON objects, each parsed on its own."""
    form = RecordForm(fields, matches, parse, is_grouped)

    def score(head: Head) -> int:
        return sum(isinstance(record, Mapping) and matches(record) for record in head.records)

    def read(path: Path, problems: Problems) -> Iterator[Example]:
        needs = f"format {name!r} needs {description}"
        return parse_values(form, needs, iter_json(path, problems), problems)

    return Format(name, description, score, read, form)


def parse_values(
    form: RecordForm, needs: str, values: Iterable[tuple[int, object]], problems: Problems
) -> Iterator[Example]:
    """The examples of numbered JSON values.

    Args:
        form: How a record is parsed.
        needs: Ends the message about a record that cannot be used.
        values: Line number and value of each record.
        problems: Told about records that cannot be used.
    """
    examples = _parse_each(form, needs, values, problems)
    return group_by_text(examples, problems) if form.is_grouped else examples


def _parse_each(
    form: RecordForm, needs: str, values: Iterable[tuple[int, object]], problems: Problems
) -> Iterator[Example]:
    parse = form.parse
    for line, value in values:
        problems.line, problems.num_lost_triplets = line, 0
        try:
            if type(value) is not dict and not isinstance(value, Mapping):
                raise RecordFault(
                    "not_an_object", f"{shorten(value)} is not a JSON object", value=value
                )
            yield from parse(value, problems)
        except RecordFault as fault:
            # What was wrong with the triplets has been said of each.
            end = "" if fault.reason == "no_triplet_left" else f"; {needs}"
            problems.drop_record(fault.reason, fault.message + end, value=fault.value or value)
