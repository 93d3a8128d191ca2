"""`spo_list` lines: DuIE 1.0, DuIE 2.0 with object slots, CMeIE, and their plain relatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tripletune.data.readers.fields import (
    add_triplet,
    build_example,
    get_field,
    get_list,
    get_mapping,
    get_text,
    tally_extra_fields,
)
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example, Triplet

__all__ = ["parse_spo_record"]

_FIELDS = frozenset({"text", "spo_list", "id"})
_VALUE = "@value"


def parse_spo_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one `{"text", "spo_list"}` record.

    An object is a string (DuIE 1.0) or `{"@value": ..., slot: ...}` (DuIE 2.0, CMeIE); further
    slots become `object_slots`. An entry may also be a list `[subject, predicate, object]`.
    Further fields, such as `postag`, have no place in an example; nor has CMeIE's `Combined` (the
    pair spans sentences). They are counted in `problems.tallies`.
    """
    text = get_text(record, "text")
    triplets: list[Triplet] = []
    for entry in get_list(record, "spo_list"):
        try:
            _add_entry(triplets, problems, entry)
        except RecordFault as fault:
            problems.drop_triplet(fault.reason, fault.message, value=entry)
    tally_extra_fields(record, _FIELDS, problems)
    yield build_example(problems, text, triplets, record.get("id"))


def _add_entry(triplets: list[Triplet], problems: Problems, entry: object) -> None:
    if isinstance(entry, list) and len(entry) == 3:
        add_triplet(triplets, problems, *entry)
        return
    entry = get_mapping(entry, "spo_list entry")
    if entry.get("Combined") is True:
        problems.tallies["combined triplets"] += 1
    value, slots = _read_object(get_field(entry, "object"))
    object_type, _ = _read_object(entry.get("object_type") or "")
    subject_type = entry.get("subject_type") or ""
    if not isinstance(subject_type, str) or not isinstance(object_type, str):
        raise RecordFault("wrong_type", f"subject_type: {shorten(subject_type)} is not a string")
    add_triplet(
        triplets,
        problems,
        get_field(entry, "subject"),
        get_field(entry, "predicate"),
        value,
        subject_type=subject_type,
        object_type=object_type,
        object_slots=slots,
    )


def _read_object(value: object) -> tuple[object, tuple[tuple[str, str], ...]]:
    if isinstance(value, str) or not isinstance(value, Mapping):
        return value, ()
    slots = []
    for name, slot in value.items():
        if name == _VALUE:
            continue
        if not isinstance(slot, str):
            raise RecordFault("wrong_type", f"object slot {name!r}: {shorten(slot)} is no string")
        if slot.strip():
            slots.append((name, slot))
    return get_field(value, _VALUE), tuple(slots)
