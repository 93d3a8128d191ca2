"""Taking fields out of foreign records, with one wording for everything that can be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet

__all__ = [
    "TripletKey",
    "add_new_triplets",
    "add_triplet",
    "build_example",
    "check_text",
    "check_triplets_left",
    "get_field",
    "get_list",
    "get_mapping",
    "get_text",
    "merge_triplets",
    "tally_extra_fields",
]

TripletKey = tuple[tuple[str, str, str], tuple[tuple[str, str], ...]]
"""What tells the triplets of one example apart: items and object slots."""


def get_field(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field.

    Raises:
        RecordFault: the field is missing.
    """
    if name not in record:
        raise RecordFault(
            "missing_field",
            f"field {name!r} is missing; the record has {', '.join(map(repr, record)) or 'none'}",
            value=dict(record),
        )
    return record[name]


def get_text(record: Mapping[str, Any], name: str) -> str:
    """The string in a field, which may be empty.

    Raises:
        RecordFault: the field is missing or holds no string.
    """
    value = get_field(record, name)
    if not isinstance(value, str):
        raise RecordFault(
            "wrong_type", f"field {name!r}: {shorten(value)} is not a string", value=value
        )
    return value


def get_list(record: Mapping[str, Any], name: str) -> Sequence[Any]:
    """The list in a field.

    Raises:
        RecordFault: the field is missing or holds no list.
    """
    value = get_field(record, name)
    if not isinstance(value, (list, tuple)):
        raise RecordFault(
            "wrong_type", f"field {name!r}: {shorten(value)} is not a list", value=value
        )
    return value


def get_mapping(value: object, name: str) -> Mapping[str, Any]:
    """The value itself, when it is a JSON object.

    Raises:
        RecordFault: it is something else.
    """
    # The exact type first: it is what JSON gives, and the abstract check costs ten times as much.
    if type(value) is not dict and not isinstance(value, Mapping):
        raise RecordFault(
            "wrong_type", f"{name}: {shorten(value)} is not a JSON object", value=value
        )
    return value


def add_triplet(
    triplets: list[Triplet],
    problems: Problems,
    subject: object,
    relation: object,
    object_: object,
    **annotations: Any,
) -> None:
    """Append the triplet, or report it when an item is empty or no string.

    Raises:
        DataError: the triplet cannot be used and problems are not collected.
    """
    try:
        triplets.append(Triplet(subject, relation, object_, **annotations))  # type: ignore[arg-type]
    except DataError as error:
        strings = all(isinstance(item, str) for item in (subject, relation, object_))
        problems.drop_triplet(
            "empty_item" if strings else "wrong_type",
            error.message,
            value=[subject, relation, object_],
        )


def add_new_triplets(
    kept: dict[TripletKey, Triplet], triplets: Iterable[Triplet], problems: Problems
) -> None:
    """Put the triplets that are not there yet behind the kept ones, and report the others.

    Triplets that differ in object slots are different.
    """
    for triplet in triplets:
        key = (triplet.key, triplet.object_slots)
        if key not in kept:
            kept[key] = triplet
            continue
        problems.change(
            "repeated_triplet", f"triplet {triplet.key!r} is given twice", value=triplet.key
        )


def merge_triplets(triplets: Iterable[Triplet], problems: Problems) -> tuple[Triplet, ...]:
    """The triplets in order, each once; those that differ in object slots are different."""
    kept: dict[TripletKey, Triplet] = {}
    add_new_triplets(kept, triplets, problems)
    return tuple(kept.values())


def build_example(
    problems: Problems, text: str, triplets: Iterable[Triplet], identifier: object = None
) -> Example:
    """The example of a text and its triplets, repeated ones merged.

    Raises:
        RecordFault: the text is empty, or all triplets of the record were dropped: without them it
            would state that there are none.
    """
    check_text(text)
    kept = merge_triplets(triplets, problems)
    check_triplets_left(kept, problems)
    return Example(
        text,
        kept,
        str(identifier) if isinstance(identifier, (str, int)) else None,
    )


def check_text(text: str) -> None:
    """Check that a text holds something.

    Raises:
        RecordFault: it does not.
    """
    if not text.strip():
        raise RecordFault("empty_text", f"text: {text!r} is empty; needed is a sentence")


def check_triplets_left(triplets: Sequence[Triplet], problems: Problems) -> None:
    """Check that a record which stated triplets has one left.

    Raises:
        RecordFault: all were dropped; without them the record would state that there are none.
    """
    if not triplets and problems.num_lost_triplets:
        raise RecordFault(
            "no_triplet_left",
            f"none of the {problems.num_lost_triplets} triplets of the record can be used, and "
            "without them it would teach that there are none",
        )


def tally_extra_fields(
    record: Mapping[str, Any], known: frozenset[str], problems: Problems
) -> None:
    """Count the fields that have no place in an example, such as DuIE's `postag`."""
    for name in record:
        if name not in known:
            problems.tallies[f"field {name!r} left out"] += 1
