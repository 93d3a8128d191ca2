"""IEPile instruction lines: question, sub-schema and text as JSON inside a JSON string.

One sentence is spread over many records, each asking for a few relations, so most answers are
empty; the records of a sentence are joined by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tripletune.data.readers.document import has_lone_surrogate, load_json
from tripletune.data.readers.fields import (
    add_triplet,
    build_example,
    get_field,
    get_mapping,
    get_text,
)
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example, Triplet

__all__ = ["parse_iepile_record"]

_OTHER_TASKS = frozenset({"NER", "EE", "EET", "EEA", "ED", "EAE"})
"""Tasks of the corpus that are not about relations; nothing follows from them about triplets."""
_PAIR_KEYS = (("head", "tail"), ("subject", "object"))


def parse_iepile_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of one record: `output` (training form) or `label` (test form) as its triplets.

    `output` is `{relation: [{"head", "tail"}]}`, or `{entity type: {entity: {attribute: value}}}`
    for the knowledge-graph task; `label` is a list of `{"head", "relation", "tail"}`.
    """
    task = record.get("task")
    if isinstance(task, str) and task.upper() in _OTHER_TASKS:
        raise RecordFault(
            "not_extraction",
            f"task {task!r} is not about relations; read are RE, SPO and KG",
            value=task,
        )
    question = get_mapping(_load(record, "instruction"), "instruction")
    text = get_text(question, "input")
    triplets: list[Triplet] = []
    if "output" in record:
        answer = get_mapping(_load(record, "output"), "output")
        types = _read_types(question.get("schema"))
        for name, value in answer.items():
            _add_answer(triplets, problems, name, value, types)
    else:
        label = _load(record, "label")
        if not isinstance(label, list):
            raise RecordFault("wrong_type", f"label: {shorten(label)} is not a list", value=label)
        for entry in label:
            _add_pair(triplets, problems, None, entry, ("", ""))
    yield build_example(problems, text, triplets)


def _load(record: Mapping[str, Any], name: str) -> object:
    source = get_field(record, name)
    if not isinstance(source, str):
        return source
    try:
        value = load_json(source)
    except (ValueError, RecursionError) as error:
        raise RecordFault(
            "broken_json", f"{name}: {shorten(source)} is not JSON: {error}", value=source
        ) from error
    if has_lone_surrogate(source, value):
        raise RecordFault("lone_surrogate", f"{name}: half a surrogate pair in {shorten(source)}")
    return value


def _read_types(schema: object) -> dict[str, tuple[str, str]]:
    types: dict[str, tuple[str, str]] = {}
    for entry in schema if isinstance(schema, list) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("predicate"), str):
            names = [entry.get(key) for key in ("subject_type", "object_type")]
            subject_type, object_type = (name if isinstance(name, str) else "" for name in names)
            types[entry["predicate"]] = (subject_type, object_type)
    return types


def _add_answer(
    triplets: list[Triplet],
    problems: Problems,
    name: str,
    value: object,
    types: Mapping[str, tuple[str, str]],
) -> None:
    if isinstance(value, list):
        for entry in value:
            _add_pair(triplets, problems, name, entry, types.get(name, ("", "")))
    elif isinstance(value, Mapping):
        for entity, attributes in value.items():
            _add_entity(triplets, problems, name, entity, attributes)
    else:
        problems.drop_triplet(
            "wrong_type", f"answer for {name!r}: {shorten(value)} is no list or object", value=value
        )


def _add_pair(
    triplets: list[Triplet],
    problems: Problems,
    relation: str | None,
    entry: object,
    types: tuple[str, str],
) -> None:
    keys = next(
        (
            keys
            for keys in _PAIR_KEYS
            if isinstance(entry, Mapping) and all(key in entry for key in keys)
        ),
        None,
    )
    if not isinstance(entry, Mapping) or keys is None:
        problems.drop_triplet(
            "missing_field", f"{shorten(entry)} has no head and tail", value=entry
        )
        return
    name = entry.get("relation") if relation is None else relation
    given = [entry.get("head_type") or types[0], entry.get("tail_type") or types[1]]
    subject_type, object_type = (kind if isinstance(kind, str) else "" for kind in given)
    add_triplet(
        triplets,
        problems,
        entry[keys[0]],
        name,
        entry[keys[1]],
        subject_type=subject_type,
        object_type=object_type,
    )


def _add_entity(
    triplets: list[Triplet], problems: Problems, kind: str, entity: str, attributes: object
) -> None:
    if not isinstance(attributes, Mapping):
        problems.drop_triplet(
            "wrong_type", f"entity {entity!r}: {shorten(attributes)} is no object", value=attributes
        )
        return
    for relation, value in attributes.items():
        for item in value if isinstance(value, list) else [value]:
            add_triplet(triplets, problems, entity, relation, item, subject_type=kind)
