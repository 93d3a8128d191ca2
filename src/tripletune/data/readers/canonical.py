"""Canonical lines: `{"text": ..., "triplets": [{"subject", "relation", "object"}]}`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from tripletune.data.readers.fields import check_text, check_triplets_left, get_list, get_text
from tripletune.data.readers.problem import Problems, shorten
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet

__all__ = ["parse_canonical_record"]

_FIELDS = frozenset({"text", "triplets", "id", "problems"})
_ITEMS = frozenset({"subject", "relation", "object"})
_TRIPLET_FIELDS = frozenset(field.name for field in fields(Triplet))


def parse_canonical_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one canonical record, its triplets exactly as they stand, repeats included."""
    text = get_text(record, "text")
    check_text(text)
    triplets: list[Triplet] = []
    for entry in get_list(record, "triplets"):
        try:
            triplets.append(_read_triplet(entry, problems))
        except DataError as error:
            reason = "empty_item" if "is empty" in error.message else "bad_triplet"
            problems.drop_triplet(reason, error.message, value=entry)
    check_triplets_left(triplets, problems)
    extra = [name for name in record if name not in _FIELDS]
    if extra:
        problems.change(
            "field_left_out",
            f"field {extra[0]!r} has no place in a canonical record: {shorten(record[extra[0]])}",
            value=extra,
        )
    identifier = record.get("id")
    yield Example(text, tuple(triplets), None if identifier is None else str(identifier))


def _read_triplet(entry: object, problems: Problems) -> Triplet:
    """`Triplet.from_record`, with a short way for the usual entry of three items."""
    if type(entry) is dict and entry.keys() == _ITEMS:
        return Triplet(entry["subject"], entry["relation"], entry["object"])
    triplet = Triplet.from_record(entry)
    extra = [name for name in entry if name not in _TRIPLET_FIELDS] if type(entry) is dict else []
    if extra:
        problems.change(
            "field_left_out",
            f"field {extra[0]!r} has no place in a triplet: {shorten(entry)}",
            value=extra,
        )
    return triplet
