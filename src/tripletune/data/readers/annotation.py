"""Character-offset annotation: `h`/`t` with `pos`, doccano, and CasRel result dumps."""

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
from tripletune.schema import Example, Span, Triplet

__all__ = [
    "build_span",
    "parse_dump_record",
    "parse_offset_record",
    "parse_relation_record",
    "parse_span_record",
]

_OFFSET_FIELDS = frozenset({"text", "spo_list", "ID", "id"})
_SPAN_FIELDS = frozenset({"text", "entities", "relations", "id"})
_DUMP_FIELDS = frozenset({"text", "triple_list", "triple_list_gold", "id"})
_RELATION_FIELDS = frozenset({"text", "relation", "id"})


def parse_offset_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of `{"text", "spo_list": [{"h": {"name", "pos"}, "t": {...}, "relation"}]}`.

    `pos` is half-open. Where it does not enclose the name, the name counts and the span is left
    out, which is reported as a change.
    """
    text = get_text(record, "text")
    triplets: list[Triplet] = []
    for entry in get_list(record, "spo_list"):
        try:
            entry = get_mapping(entry, "spo_list entry")
            subject, subject_span = _read_mention(entry, "h", text, problems)
            object_, object_span = _read_mention(entry, "t", text, problems)
            relation = get_field(entry, "relation")
        except RecordFault as fault:
            problems.drop_triplet(fault.reason, fault.message, value=entry)
            continue
        spans = {"subject_span": subject_span, "object_span": object_span}
        add_triplet(triplets, problems, subject, relation, object_, **spans)
    tally_extra_fields(record, _OFFSET_FIELDS, problems)
    yield build_example(problems, text, triplets, record.get("ID", record.get("id")))


def parse_span_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of a doccano record with `entities` (character offsets) and `relations`.

    Entity labels become types. Relations that name an unknown entity are reported.
    """
    text = get_text(record, "text")
    mentions: dict[object, tuple[str, str, Span]] = {}
    for entity in get_list(record, "entities"):
        try:
            entity = get_mapping(entity, "entity")
            span = build_span(
                get_field(entity, "start_offset"), get_field(entity, "end_offset"), text
            )
            label = entity.get("label")
            mentions[_as_key(get_field(entity, "id"))] = (
                text[span.start : span.end],
                label if isinstance(label, str) else "",
                span,
            )
        except RecordFault as fault:
            problems.change(fault.reason, f"entity left out: {fault.message}", value=entity)
    triplets: list[Triplet] = []
    for relation in get_list(record, "relations"):
        try:
            relation = get_mapping(relation, "relation")
            subject = _find_mention(mentions, get_field(relation, "from_id"))
            object_ = _find_mention(mentions, get_field(relation, "to_id"))
            name = get_field(relation, "type")
        except RecordFault as fault:
            problems.drop_triplet(fault.reason, fault.message, value=relation)
            continue
        add_triplet(
            triplets,
            problems,
            subject[0],
            name,
            object_[0],
            subject_type=subject[1],
            object_type=object_[1],
            subject_span=subject[2],
            object_span=object_[2],
        )
    tally_extra_fields(record, _SPAN_FIELDS, problems)
    yield build_example(problems, text, triplets, record.get("id"))


def parse_dump_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The gold triplets of a CasRel record (`triple_list`, or `triple_list_gold` of a result dump).

    An entry is an object with subject, relation, object or a list of the three.
    """
    name = "triple_list_gold" if "triple_list_gold" in record else "triple_list"
    text = get_text(record, "text")
    triplets: list[Triplet] = []
    for entry in get_list(record, name):
        try:
            if isinstance(entry, list) and len(entry) == 3:
                items = entry
            else:
                entry = get_mapping(entry, f"{name} entry")
                items = [get_field(entry, key) for key in ("subject", "relation", "object")]
        except RecordFault as fault:
            problems.drop_triplet(fault.reason, fault.message, value=entry)
            continue
        add_triplet(triplets, problems, *items)
    tally_extra_fields(record, _DUMP_FIELDS, problems)
    yield build_example(problems, text, triplets, record.get("id"))


def parse_relation_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of `{"text", "relation": [{"head", "relation", "tail"}]}`, types if given."""
    text = get_text(record, "text")
    triplets: list[Triplet] = []
    for entry in get_list(record, "relation"):
        try:
            entry = get_mapping(entry, "relation entry")
            items = [get_field(entry, key) for key in ("head", "relation", "tail")]
        except RecordFault as fault:
            problems.drop_triplet(fault.reason, fault.message, value=entry)
            continue
        types = [entry.get(key) for key in ("head_type", "tail_type")]
        subject_type, object_type = (name if isinstance(name, str) else "" for name in types)
        add_triplet(triplets, problems, *items, subject_type=subject_type, object_type=object_type)
    tally_extra_fields(record, _RELATION_FIELDS, problems)
    yield build_example(problems, text, triplets, record.get("id"))


def build_span(start: object, end: object, text: str) -> Span:
    """The half-open range, when it lies in the text.

    Raises:
        RecordFault: the ends are no whole numbers, or outside the text, or enclose nothing.
    """
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise RecordFault(
            "bad_offset",
            f"[{shorten(start)}, {shorten(end)}) is no range of characters of a text with "
            f"{len(text)}; needed is 0 <= start < end <= {len(text)}",
            value=[start, end],
        )
    return Span(start, end)


def _read_mention(
    entry: Mapping[str, Any], key: str, text: str, problems: Problems
) -> tuple[object, Span | None]:
    mention = get_mapping(get_field(entry, key), f"field {key!r}")
    name, position = get_field(mention, "name"), mention.get("pos")
    if position is None:
        return name, None
    try:
        if not isinstance(position, list) or len(position) != 2:
            raise RecordFault("bad_offset", f"pos: {shorten(position)} is not [start, end]")
        span = build_span(position[0], position[1], text)
    except RecordFault as fault:
        problems.change(fault.reason, f"span left out: {fault.message}", value=mention)
        return name, None
    if text[span.start : span.end] != name:
        problems.change(
            "offset_mismatch",
            f"span left out: {position} holds {shorten(text[span.start : span.end])}, not "
            f"{shorten(name)}",
            value=mention,
        )
        return name, None
    return name, span


def _as_key(identifier: object) -> object:
    """Something hashable and unequal for 1, "1" and true."""
    return (type(identifier).__name__, str(identifier))


def _find_mention(
    mentions: Mapping[object, tuple[str, str, Span]], identifier: object
) -> tuple[str, str, Span]:
    found = mentions.get(_as_key(identifier))
    if found is None:
        raise RecordFault(
            "unknown_entity",
            f"relation names entity {shorten(identifier)}, which the record does not have",
            value=identifier,
        )
    return found
