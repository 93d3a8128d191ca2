"""Schema files in every form they come in, as one `RelationSchema`.

Read are `schema.json`, DuIE and CMeIE schemas (one object a line or one array, object slots
included), IEPile schemas (lists of `subject type_relation_object type` or of names), lists of
names, and label tables (`name number` a line).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tripletune.data.readers.problem import shorten
from tripletune.data.readers.source import check_file, read_head
from tripletune.data.readers.table import NO_RELATION
from tripletune.data.relation_schema import Relation, RelationSchema, merge_schemas
from tripletune.data.statistics import find_similar_names
from tripletune.errors import DataError

__all__ = ["is_schema_file", "load_schema", "validate_schema"]

_LABEL_LINE = re.compile(r"\A(?P<name>.+?)[\s,]+\d+\Z")
_VALUE = "@value"


def load_schema(path: str | Path) -> RelationSchema:
    """The schema in a file, its form recognised by content.

    Labels that mean "no relation" are left out.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or an entry cannot be read.
    """
    path = Path(path)
    check_file(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"byte {error.start} is not UTF-8; save it as UTF-8", path=path) from error
    try:
        relations = _read_text(text)
    except DataError as error:
        raise DataError(error.message, path=path, line=error.line) from error
    relations = [relation for relation in relations if relation.name not in NO_RELATION]
    if not relations:
        raise DataError("names no relation; needed is at least one", path=path)
    return merge_schemas(RelationSchema((relation,)) for relation in relations)


def is_schema_file(path: str | Path) -> bool:
    """Whether a file is a schema rather than data, judged by its first record.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return False
    head = read_head(path)
    first = head.records[0] if head.records else None
    if isinstance(first, Mapping):
        return "relations" in first or ("predicate" in first and "text" not in first)
    if isinstance(first, (list, str)):
        return True
    return bool(head.lines) and all(
        _LABEL_LINE.match(line.strip()) is not None and "$" not in line for line in head.lines
    )


def validate_schema(schema: RelationSchema) -> tuple[str, ...]:
    """One sentence for each thing about a schema that is likely to be a mistake."""
    complaints = [
        f"relations {one!r} and {other!r} look alike"
        for one, other in find_similar_names(schema.names)
    ]
    typed = any(relation.types for relation in schema)
    for relation in schema:
        if relation.name != relation.name.strip():
            complaints.append(f"relation {relation.name!r} begins or ends in white space")
        if typed and not relation.types:
            complaints.append(f"relation {relation.name!r} has no types, others have")
        turned = [
            pair for pair in relation.types if pair[0] < pair[1] and pair[::-1] in relation.types
        ]
        complaints.extend(
            f"relation {relation.name!r} goes both ways between {one!r} and {other!r}"
            for one, other in turned
        )
    return tuple(complaints)


def _read_text(text: str) -> list[Relation]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return list(_read_lines(text))
    if isinstance(value, Mapping) and "relations" in value:
        return list(RelationSchema.from_record(value))
    return list(_read_value(value))


def _read_lines(text: str) -> Iterator[Relation]:
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    is_json = bool(lines) and lines[0][1].startswith(("{", "["))
    for number, line in lines:
        try:
            if is_json:
                yield from _read_value(_load(line))
            else:
                match = _LABEL_LINE.match(line)
                yield Relation(match.group("name") if match is not None else line)
        except DataError as error:
            raise DataError(error.message, line=number) from error


def _load(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"broken JSON in {shorten(line)}: {error}; needed is schema.json, or one schema entry "
            "or list of names a line"
        ) from error


def _read_value(value: object) -> Iterator[Relation]:
    if isinstance(value, list):
        for entry in value:
            yield from _read_value(entry)
    elif isinstance(value, str):
        parts = value.split("_")
        if len(parts) == 3 and all(parts):
            yield Relation(parts[1], ((parts[0], parts[2]),))
        else:
            yield Relation(value)
    elif isinstance(value, Mapping) and value:
        yield _read_entry(value)
    elif not isinstance(value, Mapping):
        raise DataError(f"schema entry: {shorten(value)} is neither an object nor a name")


def _read_entry(entry: Mapping[str, object]) -> Relation:
    name = entry.get("predicate", entry.get("relation"))
    if not isinstance(name, str):
        raise DataError(f"schema entry: {shorten(dict(entry))} has no predicate")
    subject_type, object_type = entry.get("subject_type", ""), entry.get("object_type", "")
    slots: tuple[tuple[str, str], ...] = ()
    if isinstance(object_type, Mapping):
        slots = tuple(
            (key, kind)
            for key, kind in object_type.items()
            if key != _VALUE and isinstance(kind, str)
        )
        object_type = object_type.get(_VALUE, "")
    if not isinstance(subject_type, str) or not isinstance(object_type, str):
        raise DataError(f"schema entry {name!r}: a type is no string in {shorten(dict(entry))}")
    types = ((subject_type, object_type),) if subject_type or object_type else ()
    return Relation(name, types, slots)
