"""Taking fields out of foreign records, with one wording for everything that can be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.errors import DataError
from tripletune.schema import Example, Triplet

__all__ = [
    "add_triplet",
    "build_example",
    "get_field",
    "get_list",
    "get_mapping",
    "get_text",
    "merge_triplets",
]


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


def merge_triplets(triplets: Iterable[Triplet], problems: Problems) -> tuple[Triplet, ...]:
    """The triplets in order, each once; those that differ in object slots are different."""
    kept: dict[tuple[object, ...], Triplet] = {}
    for triplet in triplets:
        key = (triplet.key, triplet.object_slots)
        if key not in kept:
            kept[key] = triplet
            continue
        problems.change(
            "repeated_triplet", f"triplet {triplet.key!r} is given twice", value=triplet.key
        )
    return tuple(kept.values())


def build_example(
    problems: Problems, text: str, triplets: Iterable[Triplet], identifier: object = None
) -> Example:
    """The example of a text and its triplets, repeated ones merged.

    Raises:
        RecordFault: the text is empty.
    """
    if not text.strip():
        raise RecordFault("empty_text", f"text: {text!r} is empty; needed is a sentence")
    return Example(
        text,
        merge_triplets(triplets, problems),
        str(identifier) if isinstance(identifier, (str, int)) else None,
    )
