"""Split a data file into training, validation and test files that do not leak."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tripletune.data.duplicates import TextIndex
from tripletune.data.fingerprint import normalise_text
from tripletune.data.output_path import check_output_path
from tripletune.data.readers import read_examples
from tripletune.data.writers import open_output
from tripletune.errors import ConfigError, DataError
from tripletune.schema import Example

__all__ = ["SplitMode", "SplitReport", "split_file"]

SplitMode = Literal["random", "stratified", "entity_disjoint"]
LEFT_OUT = "left_out"
"""Name of the part that takes what fits nowhere."""


@dataclass(slots=True)
class SplitReport:
    """How a file was split.

    Attributes:
        counts: Examples in each part, in the order of the shares; `left_out` last, if any.
        relations: Triplets of each relation in each part.
        paths: The file of each part.
    """

    counts: dict[str, int] = field(default_factory=dict)
    relations: dict[str, Counter[str]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """The JSON object of this report."""
        return {
            "counts": self.counts,
            "relations": {name: dict(c.most_common()) for name, c in self.relations.items()},
            "paths": self.paths,
        }


@dataclass(frozen=True, slots=True)
class _Unit:
    """Examples that must stay together because their texts are equal but for form, or nearly.

    Attributes:
        numbers: The examples, by their number in the file from 0.
        rank: A random number that depends on the seed and the text.
        stratum: The rarest relation, or "" for no triplet.
        entities: Hashes of all subjects and objects.
    """

    numbers: tuple[int, ...]
    rank: int
    stratum: str
    entities: frozenset[int]


def split_file(
    input_path: str | Path,
    output_dir: str | Path,
    *,
    shares: Mapping[str, float] | None = None,
    mode: SplitMode = "stratified",
    seed: int = 42,
    near_threshold: float | None = 0.8,
    input_format: str | None = None,
) -> SplitReport:
    """Split a file into `OUTPUT_DIR/<part>.jsonl`, canonical lines, in the order of the input.

    Texts equal but for form always go to one part, and so do near duplicates. Same input, shares,
    mode and seed: same parts. The input is read twice and never changed.

    Args:
        input_path: The file.
        output_dir: The folder of the parts.
        shares: The share of each part, the first being the training part; None is 0.8 for train,
            0.1 for validation and 0.1 for test. They are taken relative to their sum.
        mode: "random"; "stratified" gives each part its share of every relation and of the
            examples without triplets; "entity_disjoint" lets no subject or object of one part
            occur in another: examples that link two parts go to `left_out.jsonl`.
        seed: Of the draw.
        near_threshold: Similarity from which texts are near duplicates; None does not look.
        input_format: None recognises it by content.

    Raises:
        ConfigError: fewer than two shares, one that is not above 0, a part named `left_out`, a
            threshold out of range, or the input is one of the parts' files.
        DataError: a record cannot be used, or there are fewer texts than parts.
        OutputError: a file cannot be written.
    """
    shares = dict(shares or {"train": 0.8, "validation": 0.1, "test": 0.1})
    if len(shares) < 2 or min(shares.values()) <= 0 or LEFT_OUT in shares:
        raise ConfigError(
            f"shares: {shares!r}: needed are two parts or more, each above 0, none of them named "
            f"{LEFT_OUT!r}"
        )
    source, folder = Path(input_path), Path(output_dir)
    targets = {name: folder / f"{name}.jsonl" for name in (*shares, LEFT_OUT)}
    for target in targets.values():
        check_output_path(target, [source])
    units = _build_units(source, seed, near_threshold, input_format)
    if len(units) < len(shares):
        raise DataError(
            f"has {len(units)} different texts, too few for {len(shares)} parts", path=source
        )
    total = sum(shares.values())
    fractions = {name: share / total for name, share in shares.items()}
    assign = {
        "random": lambda: _assign_strata([units], fractions),
        "stratified": lambda: _assign_strata(_group_strata(units), fractions),
        "entity_disjoint": lambda: _assign_disjoint(units, fractions),
    }.get(mode)
    if assign is None:
        raise ConfigError(
            f"mode: {mode!r} is unknown; accepted are random, stratified, entity_disjoint"
        )
    return _write(source, input_format, assign(), targets)


def _build_units(
    source: Path, seed: int, near_threshold: float | None, input_format: str | None
) -> list[_Unit]:
    keys: list[str] = []
    numbers: dict[str, list[int]] = defaultdict(list)
    relations: dict[str, tuple[str, ...]] = {}
    entities: dict[str, frozenset[int]] = {}
    totals: Counter[str] = Counter()
    with TextIndex(threshold=near_threshold) as index:
        index.start_file()
        for number, example in enumerate(read_examples(source, format=input_format)):
            key = _digest(seed, normalise_text(example.text))
            keys.append(key)
            numbers[key].append(number)
            if near_threshold is not None:
                index.add(example.text)
            found = {triplet.relation for triplet in example.triplets}
            totals.update(found)
            relations[key] = tuple(sorted(found.union(relations.get(key, ()))))
            items = {_digest_item(i) for t in example.triplets for i in (t.subject, t.object)}
            entities[key] = entities.get(key, frozenset()) | items
        near = [(keys[m.index], keys[m.other]) for m in index.find_matches() if m.kind == "near"]
    units = []
    for group in _join(numbers, near):
        members = sorted(number for key in group for number in numbers[key])
        names = {name for key in group for name in relations[key]}
        rarest = min(names, key=lambda name: (totals[name], name), default="")
        found_entities = frozenset[int]().union(*(entities[key] for key in group))
        units.append(_Unit(tuple(members), int(min(group), 16), rarest, found_entities))
    return sorted(units, key=lambda unit: unit.rank)


def _join(keys: Iterable[str], pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """The keys in groups, so that the two of each pair are in one, directly or by others."""
    leaders: dict[str, str] = {}

    def find(key: str) -> str:
        leader = key
        while leader in leaders:
            leader = leaders[leader]
        while key != leader:
            leaders[key], key = leader, leaders[key]
        return leader

    for one, other in pairs:
        first, second = find(one), find(other)
        if first != second:
            leaders[second] = first
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[find(key)].append(key)
    return list(groups.values())


def _digest(seed: int, text: str) -> str:
    raw = f"{seed}\n{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(raw, digest_size=12).hexdigest()


def _digest_item(item: str) -> int:
    raw = item.casefold().strip().encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")


def _group_strata(units: Sequence[_Unit]) -> list[list[_Unit]]:
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.stratum].append(unit)
    return sorted(strata.values(), key=lambda stratum: (len(stratum), stratum[0].stratum))


def _assign_strata(
    strata: Sequence[Sequence[_Unit]], fractions: Mapping[str, float]
) -> dict[int, str]:
    """Each unit to the part that lags furthest behind its share, of the stratum and then of all."""
    parts: dict[int, str] = {}
    overall: Counter[str] = Counter()
    num_all = 0
    for stratum in strata:
        own: Counter[str] = Counter()
        num_own = 0
        for unit in stratum:
            weight = len(unit.numbers)
            num_own += weight
            num_all += weight
            name = max(
                fractions,
                key=lambda part: (
                    round(fractions[part] * num_own - own[part], 6),
                    fractions[part] * num_all - overall[part],
                ),
            )
            own[name] += weight
            overall[name] += weight
            parts.update(dict.fromkeys(unit.numbers, name))
    return parts


def _assign_disjoint(units: Sequence[_Unit], fractions: Mapping[str, float]) -> dict[int, str]:
    """Held-out parts claim entities, the least connected first; examples that link parts are out.

    The first part is the training part: it keeps all that no held-out part has claimed. Examples
    without entities are dealt out by share.
    """
    names = list(fractions)
    parts = _assign_strata([[unit for unit in units if not unit.entities]], fractions)
    linked = [unit for unit in units if unit.entities]
    touching: dict[int, list[int]] = defaultdict(list)
    for place, unit in enumerate(linked):
        for entity in unit.entities:
            touching[entity].append(place)
    total = sum(len(unit.numbers) for unit in linked)
    quota = {name: fractions[name] * total for name in names[1:]}
    owners: dict[int, str] = {}
    unclaimed = [len(unit.entities) for unit in linked]

    def claim(entities: frozenset[int], name: str) -> None:
        """Give entities to a part, and count the examples that are now wholly its own."""
        for entity in entities:
            if entity in owners:
                continue
            owners[entity] = name
            for place in touching[entity]:
                unclaimed[place] -= 1
                inside = linked[place].entities
                if not unclaimed[place] and all(owners[other] == name for other in inside):
                    quota[name] -= len(linked[place].numbers)

    for unit in sorted(linked, key=lambda unit: (_find_hub(unit, touching), unit.rank)):
        found = {owners[entity] for entity in unit.entities if entity in owners}
        waiting = [name for name in quota if quota[name] > 0]
        if not waiting:
            break
        name = next(iter(found)) if found else max(waiting, key=lambda part: quota[part])
        if len(found) <= 1 and name in waiting:
            claim(unit.entities, name)
    for unit in linked:
        found = {owners.get(entity, names[0]) for entity in unit.entities}
        name = next(iter(found)) if len(found) == 1 else LEFT_OUT
        parts.update(dict.fromkeys(unit.numbers, name))
    return parts


def _find_hub(unit: _Unit, touching: Mapping[int, Sequence[int]]) -> int:
    """How many examples the most frequent entity of a unit is in."""
    return max(len(touching[entity]) for entity in unit.entities)


def _write(
    source: Path, input_format: str | None, parts: Mapping[int, str], targets: Mapping[str, Path]
) -> SplitReport:
    report = SplitReport()
    used = [name for name in targets if name != LEFT_OUT or LEFT_OUT in set(parts.values())]
    with ExitStack() as stack:
        files = {name: stack.enter_context(open_output(targets[name])) for name in used}
        report.counts = dict.fromkeys(used, 0)
        report.relations = {name: Counter() for name in used}
        report.paths = {name: str(targets[name]) for name in used}
        for name, example in _iter_parts(source, input_format, parts):
            files[name].write(example.to_json() + "\n")
            report.counts[name] += 1
            report.relations[name].update(triplet.relation for triplet in example.triplets)
    return report


def _iter_parts(
    source: Path, input_format: str | None, parts: Mapping[int, str]
) -> Iterator[tuple[str, Example]]:
    for number, example in enumerate(read_examples(source, format=input_format)):
        yield parts[number], example
