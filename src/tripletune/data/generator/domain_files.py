"""Domains that users supply: types, phrasings and facts from JSON Lines files.

A template file has one object a line, either a type or a relation:

```json
{"type": "疾病", "names": ["感冒", "肺炎"], "pronouns": ["该病"], "neutral": ["十分常见"]}
{"type": "医生", "kind": "人物"}
{"relation": "症状", "subject_type": "疾病", "object_type": "症状", "nouns": ["症状"],
 "sentences": ["{s}会引起{o}"], "predicates": ["常见表现为{o}"], "modifiers": ["引起{o}的"],
 "max_objects": 3}
```

(A relation stands on one line.) A type has `names`, or `names_file` with a name a line, or the
`kind` of names to make up; `mark` (such as `《{}》`), `label` and `shared` are optional. A relation
needs its two types; without phrasings it is stated by its name: `{s}的…是{o}`, `{o}是{s}的…` and
the like. A fact file has lines such as
`{"subject": "感冒", "relation": "症状", "object": "发热"}`, or labelled examples with `triplets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any

from tripletune.data.generator.builtin import build_default_domain
from tripletune.data.generator.domain import (
    Domain,
    EntityType,
    Relation,
    TableRow,
    state_by_name,
)
from tripletune.data.generator.names import NAME_KINDS
from tripletune.data.generator.usual_types import find_kind
from tripletune.data.readers.problem import Problems
from tripletune.data.readers.source import iter_json
from tripletune.data.schema_files import load_schema
from tripletune.errors import ConfigError, DataError

__all__ = ["load_domain"]

_TYPE_FIELDS = (
    "type",
    "names",
    "names_file",
    "kind",
    "label",
    "mark",
    "pronouns",
    "neutral",
    "shared",
)
_RELATION_FIELDS = (
    *("relation", "subject_type", "object_type", "nouns", "sentences", "predicates"),
    *("modifiers", "max_objects"),
)
_UNTYPED = "实体"


@dataclass(slots=True)
class _Draft:
    """What has been read so far, with the place of every relation."""

    types: dict[str, EntityType] = field(default_factory=dict)
    relations: list[Relation] = field(default_factory=list)
    places: list[tuple[Path, int | None]] = field(default_factory=list)
    named_by_kind: dict[str, str] = field(default_factory=dict)
    facts: list[TableRow] = field(default_factory=list)
    items: dict[str, dict[str, None]] = field(default_factory=dict)

    def add_relation(self, relation: Relation, path: Path, line: int | None) -> None:
        self.relations.append(relation)
        self.places.append((path, line))


def load_domain(
    templates: str | Path | None = None,
    facts: str | Path | None = None,
    schema: str | Path | None = None,
) -> Domain:
    """The domain that some files describe.

    Relations come from the templates; a schema adds those it alone has. With facts, only facts of
    that file are stated; where no relations are given they are taken from the facts, too. A
    relation without phrasings of its own has those of the built-in one of its name, or is stated by
    its name. A type that the schema alone names has names of the kind that `usual_types` gives it.

    Args:
        templates: Types and relations with phrasings.
        facts: Facts, or labelled examples whose triplets are facts.
        schema: Relations and their types, in any form that schema files have.

    Raises:
        ConfigError: no file is given.
        DataError: a file cannot be used, or a type of the templates has no names; the message names
            file and line.
    """
    if templates is None and facts is None and schema is None:
        raise ConfigError("domain: neither templates nor facts nor a schema are given; give a file")
    draft = _Draft()
    if templates is not None:
        _read_templates(Path(templates), draft)
    if schema is not None:
        _read_schema(Path(schema), draft)
    if facts is not None:
        is_open = not draft.relations
        if is_open:
            for relation in build_default_domain().relations:
                draft.add_relation(relation, Path(facts), None)
        _read_facts(Path(facts), draft, may_add=is_open)
        used = {row[1] for row in draft.facts}
        keep = [index for index, r in enumerate(draft.relations) if r.key in used]
        draft.relations = [draft.relations[index] for index in keep]
        draft.places = [draft.places[index] for index in keep]
    if not draft.relations:
        raise DataError('no line has a "relation"; add one, or give facts', path=templates)
    _complete_types(draft, None if schema is None else Path(schema))
    facts_once = tuple(dict.fromkeys(draft.facts))
    named = tuple(draft.named_by_kind.items())
    return Domain(draft.types, tuple(draft.relations), facts_once, named)


def _read_templates(path: Path, draft: _Draft) -> None:
    for line, row in _iter_rows(path):
        if "relation" in row:
            relation = _read_relation(row, path, line)
            if any(known.key == relation.key for known in draft.relations):
                raise DataError(
                    f"relation {relation.name!r} from {relation.subject_type!r} to "
                    f"{relation.object_type!r} is given twice; merge the two lines",
                    path=path,
                    line=line,
                )
            draft.add_relation(relation, path, line)
        elif "type" in row:
            entity = _read_type(row, path, line)
            if entity.name in draft.types:
                raise DataError(
                    f"type {entity.name!r} is given twice; merge the two lines",
                    path=path,
                    line=line,
                )
            draft.types[entity.name] = entity
        else:
            raise DataError(
                f"fields {sorted(row)!r} name neither a 'type' nor a 'relation'; see the formats "
                "in tripletune.data.generator.domain_files",
                path=path,
                line=line,
            )


def _read_schema(path: Path, draft: _Draft) -> None:
    known = {relation.name for relation in draft.relations}
    for entry in load_schema(path).relations:
        if entry.name not in known:
            for types in entry.types or (("", ""),):
                relation = _borrow(entry.name, types[0] or _UNTYPED, types[1] or _UNTYPED)
                draft.add_relation(relation, path, None)


def _borrow(name: str, subject_type: str, object_type: str) -> Relation:
    """A relation between two types, with the phrasings of a built-in relation of that name."""
    named = [relation for relation in build_default_domain().relations if relation.name == name]
    for relation in named:
        if (relation.subject_type, relation.object_type) == (subject_type, object_type):
            return relation
    if not named:
        return state_by_name(Relation(name, subject_type, object_type))
    return replace(named[0], subject_type=subject_type, object_type=object_type)


def _read_facts(path: Path, draft: _Draft, *, may_add: bool) -> None:
    for line, row in _iter_rows(path):
        triplets = row.get("triplets", [row])
        if not isinstance(triplets, list):
            raise DataError(f"triplets: {triplets!r} is not a list", path=path, line=line)
        for triplet in triplets:
            if not isinstance(triplet, Mapping):
                raise DataError(f"triplet: {triplet!r} is not an object", path=path, line=line)
            _read_fact(triplet, draft, path, line, may_add=may_add)
    if not draft.facts:
        raise DataError("holds no fact; add lines with subject, relation and object", path=path)


def _read_fact(
    row: Mapping[str, Any], draft: _Draft, path: Path, line: int, *, may_add: bool
) -> None:
    subject, name, object_ = (
        _read_text(row, key, path, line) for key in ("subject", "relation", "object")
    )
    stated = tuple(str(row.get(key) or "") for key in ("subject_type", "object_type"))
    fits = [
        relation
        for relation in draft.relations
        if relation.name == name and _fits(relation, stated, draft.types)
    ]
    if not fits and may_add:
        relation = _borrow(name, stated[0] or _UNTYPED, stated[1] or _UNTYPED)
        draft.add_relation(relation, path, line)
        fits = [relation]
    if not fits:
        raise DataError(
            f"relation {name!r} with types {stated!r} is not among the relations"
            + _suggest(name, {relation.name for relation in draft.relations}),
            path=path,
            line=line,
        )
    if len(fits) > 1:
        pairs = ", ".join(f"{r.subject_type} -> {r.object_type}" for r in fits)
        raise DataError(
            f"relation {name!r} stands for several pairs of types ({pairs}); state subject_type "
            "and object_type",
            path=path,
            line=line,
        )
    relation = fits[0]
    draft.facts.append((subject, relation.key, object_))
    draft.items.setdefault(relation.subject_type, {})[subject] = None
    draft.items.setdefault(relation.object_type, {})[object_] = None


def _fits(relation: Relation, stated: tuple[str, ...], types: Mapping[str, EntityType]) -> bool:
    for wanted, name in zip(stated, (relation.subject_type, relation.object_type), strict=True):
        known = types.get(name) or build_default_domain().types.get(name)
        if wanted and wanted != name and (known is None or wanted != known.label):
            return False
    return True


def _complete_types(draft: _Draft, schema: Path | None) -> None:
    """Give every type of every relation its names."""
    for relation, (path, line) in zip(draft.relations, draft.places, strict=True):
        for name in (relation.subject_type, relation.object_type):
            if name in draft.types:
                continue
            found = _find_type(name, draft.items)
            if found is None and path == schema:
                found = _name_by_kind(name)
                draft.named_by_kind[name] = found.kind
            if found is None:
                raise DataError(
                    f"type {name!r} has no names{_suggest(name, NAME_KINDS)}; add a line "
                    f'{{"type": "{name}", "names": […]}} to the templates, or one with "kind"',
                    path=path,
                    line=line,
                )
            draft.types[name] = found
    for name, items in draft.items.items():
        entity = draft.types[name]
        if entity.names or entity.kind not in NAME_KINDS:
            names = tuple(dict.fromkeys((*entity.names, *items)))
            draft.types[name] = replace(entity, kind=name, names=names)


def _find_type(name: str, items: Collection[str]) -> EntityType | None:
    known = build_default_domain().types.get(name)
    if known is not None:
        return known
    alike = [entity for entity in build_default_domain().types.values() if entity.label == name]
    if alike and name not in items:
        return replace(alike[0], name=name)
    if name in NAME_KINDS or name in items:
        return EntityType(name, name, name)
    return None


def _name_by_kind(name: str) -> EntityType:
    """A type with the names, marks and pronouns of the built-in one that is most like it."""
    kind = find_kind(name)
    known = build_default_domain().types.get(kind)
    return EntityType(name, name, kind) if known is None else replace(known, name=name, label=name)


def _read_type(row: Mapping[str, Any], path: Path, line: int) -> EntityType:
    _refuse_unknown(row, _TYPE_FIELDS, path, line)
    name = _read_text(row, "type", path, line)
    names = _read_texts(row, "names", path, line)
    if "names_file" in row:
        names += _read_names_file(
            path.parent / _read_text(row, "names_file", path, line), path, line
        )
    kind = str(row.get("kind", name))
    if names:
        kind = name
    elif kind not in NAME_KINDS:
        raise DataError(
            f"kind: {kind!r} is not known{_suggest(kind, NAME_KINDS)}; known are "
            f"{', '.join(NAME_KINDS)}; or give names",
            path=path,
            line=line,
        )
    mark = str(row.get("mark", "{}"))
    if mark.count("{}") != 1 or mark.replace("{}", "").strip("《》“”‘’「」\"'<>【】[]") != "":
        raise DataError(
            f"mark: {mark!r} is not {{}} within marks, such as 《{{}}》", path=path, line=line
        )
    shared = row.get("shared", False)
    if not isinstance(shared, bool):
        raise DataError(f"shared: {shared!r} is not true or false", path=path, line=line)
    return EntityType(
        name,
        str(row.get("label") or name),
        kind,
        mark,
        _read_texts(row, "pronouns", path, line),
        _read_texts(row, "neutral", path, line),
        tuple(dict.fromkeys(names)),
        shared,
    )


def _read_names_file(path: Path, templates: Path, line: int) -> tuple[str, ...]:
    try:
        names = [text.strip() for text in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"names_file: {str(path)!r} cannot be read ({error}); needed is a UTF-8 file with a "
            "name a line",
            path=templates,
            line=line,
        ) from error
    return tuple(name for name in names if name)


def _read_relation(row: Mapping[str, Any], path: Path, line: int) -> Relation:
    _refuse_unknown(row, _RELATION_FIELDS, path, line)
    name = _read_text(row, "relation", path, line)
    nouns = _read_texts(row, "nouns", path, line)
    sentences = _read_phrasings(row, "sentences", "so", path, line)
    most = row.get("max_objects", 1)
    if type(most) is not int or not 1 <= most <= 8:
        raise DataError(f"max_objects: {most!r} is not a number from 1 to 8", path=path, line=line)
    relation = Relation(
        name,
        _read_text(row, "subject_type", path, line),
        _read_text(row, "object_type", path, line),
        nouns,
        sentences,
        _read_phrasings(row, "predicates", "o", path, line),
        _read_phrasings(row, "modifiers", "o", path, line),
        most,
    )
    return relation if nouns or sentences else state_by_name(relation)


def _read_phrasings(
    row: Mapping[str, Any], key: str, slots: str, path: Path, line: int
) -> tuple[str, ...]:
    texts = []
    for text in _read_texts(row, key, path, line):
        text = text.replace("{subject}", "{s}").replace("{object}", "{o}")
        try:
            found = sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)
        except ValueError:
            found = ["?"]
        if found != sorted(slots):
            wanted = " and ".join(f"{{{slot}}}" for slot in sorted(slots, reverse=True))
            raise DataError(
                f"{key}: {text!r} must hold {wanted} once each and no other braces",
                path=path,
                line=line,
            )
        texts.append(text)
    return tuple(texts)


def _iter_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, value in iter_json(path, Problems(path)):
        if not isinstance(value, Mapping):
            raise DataError(f"{value!r} is not a JSON object", path=path, line=line)
        yield line, value


def _read_text(row: Mapping[str, Any], key: str, path: Path, line: int) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{key}: {value!r} is not a text; {key!r} needs one that is not empty",
            path=path,
            line=line,
        )
    return value


def _read_texts(row: Mapping[str, Any], key: str, path: Path, line: int) -> tuple[str, ...]:
    values = row.get(key, [])
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise DataError(
            f"{key}: {values!r} is not a list of texts that are not empty", path=path, line=line
        )
    return tuple(values)


def _refuse_unknown(row: Mapping[str, Any], known: Collection[str], path: Path, line: int) -> None:
    for key in row:
        if key not in known:
            raise DataError(
                f"field {key!r} is not known{_suggest(key, known)}; known are {', '.join(known)}",
                path=path,
                line=line,
            )


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
