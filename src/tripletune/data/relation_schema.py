"""The relation schema: which relations there are, between which types, with which object slots.

Its file, `schema.json`:

```json
{"relations": [{"name": "票房", "types": [["影视作品", "Number"]], "slots": {"inArea": "地点"}}]}
```

`types` lists the allowed (subject type, object type) pairs; none means that any will do. A pair
with an empty type leaves that side open.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tripletune.errors import DataError, OutputError
from tripletune.schema import Example, Triplet

__all__ = [
    "Fit",
    "Relation",
    "RelationSchema",
    "TypePair",
    "learn_schema",
    "merge_schemas",
    "save_schema",
]

TypePair = tuple[str, str]
Fit = Literal["fits", "unknown_relation", "reversed", "wrong_types"]


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation of a schema.

    Attributes:
        name: The relation as it is written in triplets.
        types: The allowed (subject type, object type) pairs; empty allows any.
        slots: Further object slots as (name, type) pairs.
        count: How many triplets it was learned from; 0 when it was read from a schema file.

    Raises:
        DataError: the name is empty.
    """

    name: str
    types: tuple[TypePair, ...] = ()
    slots: tuple[tuple[str, str], ...] = ()
    count: int = 0

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DataError(f"schema relation: the name {self.name!r} is empty")

    def allows(self, subject_type: str, object_type: str) -> bool:
        """Whether the types fit; an empty type, here or in the schema, fits any."""
        return not self.types or any(
            _covers(allowed[0], subject_type) and _covers(allowed[1], object_type)
            for allowed in self.types
        )

    def to_record(self) -> dict[str, Any]:
        """The JSON object of this relation; what is not known is left out."""
        record: dict[str, Any] = {"name": self.name, "types": [list(pair) for pair in self.types]}
        if self.slots:
            record["slots"] = dict(self.slots)
        if self.count:
            record["count"] = self.count
        return record


@dataclass(frozen=True, slots=True)
class RelationSchema:
    """The relations a task knows, each name once, in a fixed order.

    Raises:
        DataError: a relation name is given twice.

    Example:
        >>> schema = RelationSchema((Relation("作者", (("图书作品", "人物"),)),))
        >>> triplet = Triplet("鲁迅", "作者", "呐喊", subject_type="人物", object_type="图书作品")
        >>> schema.judge(triplet)
        'reversed'
    """

    relations: tuple[Relation, ...]

    def __post_init__(self) -> None:
        repeated = [n for n, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise DataError(f"schema: relation {repeated[0]!r} is given twice; merge its entries")

    def __contains__(self, name: object) -> bool:
        return any(relation.name == name for relation in self.relations)

    def __iter__(self) -> Iterator[Relation]:
        return iter(self.relations)

    def __len__(self) -> int:
        return len(self.relations)

    @property
    def names(self) -> tuple[str, ...]:
        """The relation names, in order."""
        return tuple(relation.name for relation in self.relations)

    @property
    def subject_types(self) -> tuple[str, ...]:
        """Every subject type, sorted."""
        return tuple(sorted({pair[0] for r in self.relations for pair in r.types if pair[0]}))

    @property
    def object_types(self) -> tuple[str, ...]:
        """Every object type, sorted."""
        return tuple(sorted({pair[1] for r in self.relations for pair in r.types if pair[1]}))

    def find(self, name: str) -> Relation | None:
        """The relation of that name, or None."""
        return next((relation for relation in self.relations if relation.name == name), None)

    def judge(self, triplet: Triplet) -> Fit:
        """Whether a triplet fits, and if not, why; types it does not state fit any."""
        return judge_types(self.find(triplet.relation), triplet.subject_type, triplet.object_type)

    def to_record(self) -> dict[str, Any]:
        """The JSON object of this schema."""
        return {"relations": [relation.to_record() for relation in self.relations]}

    @classmethod
    def from_record(cls, record: object) -> RelationSchema:
        """The schema that a JSON object in the form of `schema.json` describes.

        Raises:
            DataError: a field is missing or of the wrong type, or a name is given twice.
        """
        entries = record.get("relations") if isinstance(record, Mapping) else None
        if not isinstance(entries, list):
            raise DataError("schema: field 'relations' with a list of relations is missing")
        return cls(tuple(_read_relation(entry) for entry in entries))


def judge_types(relation: Relation | None, subject_type: str, object_type: str) -> Fit:
    """Whether the types fit a relation; "reversed" when they fit the other way round only."""
    if relation is None:
        return "unknown_relation"
    if relation.allows(subject_type, object_type):
        return "fits"
    return "reversed" if relation.allows(object_type, subject_type) else "wrong_types"


def learn_schema(
    examples: Iterable[Example], *, min_count: int = 1, min_share: float = 0.0
) -> RelationSchema:
    """The schema that the triplets of some examples follow, the most frequent relation first.

    Args:
        examples: Read once.
        min_count: Relations with fewer triplets are left out.
        min_share: Type pairs with a smaller share of their relation's triplets are left out, so
            that single mistakes do not become rules.
    """
    counts: Counter[str] = Counter()
    pairs: dict[str, Counter[TypePair]] = {}
    slots: dict[str, dict[str, str]] = {}
    for example in examples:
        for triplet in example.triplets:
            counts[triplet.relation] += 1
            if triplet.subject_type or triplet.object_type:
                types = (triplet.subject_type, triplet.object_type)
                pairs.setdefault(triplet.relation, Counter())[types] += 1
            for name, _ in triplet.object_slots:
                slots.setdefault(triplet.relation, {}).setdefault(name, "")
    relations = []
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count < min_count:
            continue
        seen = sorted(pairs.get(name, Counter()).items(), key=lambda item: (-item[1], item[0]))
        allowed = tuple(pair for pair, number in seen if number >= min_share * count)
        relations.append(Relation(name, allowed, tuple(slots.get(name, {}).items()), count))
    return RelationSchema(tuple(relations))


def merge_schemas(schemas: Iterable[RelationSchema]) -> RelationSchema:
    """One schema that allows what any of them allows; counts add up, order is of first mention.

    A relation that one schema leaves open to any types and another restricts keeps the
    restrictions: no types means that none were known.
    """
    merged: dict[str, Relation] = {}
    for schema in schemas:
        for relation in schema:
            known = merged.get(relation.name)
            if known is None:
                merged[relation.name] = relation
                continue
            slots = dict(known.slots)
            for slot, kind in relation.slots:
                slots[slot] = slots.get(slot) or kind
            merged[relation.name] = Relation(
                relation.name,
                tuple(dict.fromkeys((*known.types, *relation.types))),
                tuple(slots.items()),
                known.count + relation.count,
            )
    return RelationSchema(tuple(merged.values()))


def save_schema(schema: RelationSchema, path: str | Path) -> None:
    """Write `schema.json`.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(schema.to_record(), ensure_ascii=False, indent=2) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _covers(allowed: str, stated: str) -> bool:
    return not allowed or not stated or allowed == stated


def _read_relation(entry: object) -> Relation:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise DataError(f"schema relation: {entry!r} is no object with a name")
    types, slots, count = entry.get("types", []), entry.get("slots", {}), entry.get("count", 0)
    if not isinstance(types, list) or not all(_is_pair(pair) for pair in types):
        raise DataError(
            f"schema relation {entry['name']!r}: types {types!r} is no list of [subject type, "
            "object type] pairs"
        )
    if not isinstance(slots, Mapping) or not all(isinstance(v, str) for v in slots.values()):
        raise DataError(f"schema relation {entry['name']!r}: slots {slots!r} is no object of types")
    if type(count) is not int or count < 0:
        raise DataError(f"schema relation {entry['name']!r}: count {count!r} is no number >= 0")
    pairs = tuple((pair[0], pair[1]) for pair in types)
    return Relation(entry["name"], pairs, tuple(slots.items()), count)


def _is_pair(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(item, str) for item in pair)
