"""DiaKG documents: paragraphs of sentences, each with entities and relations between them."""

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
)
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example, Triplet

__all__ = ["parse_document_record"]


def parse_document_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """One example a paragraph, since relations may cross sentences; entity types are kept."""
    document = record.get("doc_id")
    for number, paragraph in enumerate(get_list(record, "paragraphs")):
        problems.num_lost_triplets = 0
        try:
            paragraph = get_mapping(paragraph, "paragraph")
            identifier = paragraph.get("paragraph_id", number)
            yield build_example(
                problems,
                get_text(paragraph, "paragraph"),
                _read_triplets(paragraph, problems),
                f"{document}-{identifier}" if isinstance(document, (str, int)) else None,
            )
        except RecordFault as fault:
            problems.drop_record(fault.reason, f"paragraph {number}: {fault.message}")


def _read_triplets(paragraph: Mapping[str, Any], problems: Problems) -> list[Triplet]:
    sentences = [get_mapping(item, "sentence") for item in get_list(paragraph, "sentences")]
    entities: dict[str, tuple[object, str]] = {}
    for sentence in sentences:
        for entity in get_list(sentence, "entities"):
            entity = get_mapping(entity, "entity")
            kind = entity.get("entity_type")
            entities[get_text(entity, "entity_id")] = (
                get_field(entity, "entity"),
                kind if isinstance(kind, str) else "",
            )
    triplets: list[Triplet] = []
    for sentence in sentences:
        for relation in get_list(sentence, "relations"):
            _add_relation(triplets, problems, relation, entities)
    return triplets


def _add_relation(
    triplets: list[Triplet],
    problems: Problems,
    relation: object,
    entities: Mapping[str, tuple[object, str]],
) -> None:
    try:
        relation = get_mapping(relation, "relation")
        name = get_field(relation, "relation_type")
        ends = [get_text(relation, key) for key in ("head_entity_id", "tail_entity_id")]
        unknown = [end for end in ends if end not in entities]
        if unknown:
            raise RecordFault(
                "unknown_entity",
                f"relation names entity {shorten(unknown[0])}, which the paragraph does not have",
            )
    except RecordFault as fault:
        problems.drop_triplet(fault.reason, fault.message, value=relation)
        return
    (subject, subject_type), (object_, object_type) = entities[ends[0]], entities[ends[1]]
    add_triplet(
        triplets,
        problems,
        subject,
        name,
        object_,
        subject_type=subject_type,
        object_type=object_type,
    )
