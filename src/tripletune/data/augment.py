"""More training sentences from those there are: entities give way to others of their kind.

A model that sees few sentences learns their entities by heart. In a copy of a sentence some of them
are replaced, wherever they stand, by entities of the same types that stand on the same side of the
same relation elsewhere in the data:

```
text      《邪少兵王》是冰火未央写的网络小说     (邪少兵王, 作者, 冰火未央)
copy      《邪少兵王》是唐家三少写的网络小说     (邪少兵王, 作者, 唐家三少)
```

The copy may state what is not true; what it teaches is to read the text.

Source: Dai and Adel (COLING 2020), An Analysis of Simple Data Augmentation for Named Entity
Recognition, section 3, mention replacement; here for whole triplets.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from tripletune.data.output_path import check_output_path
from tripletune.data.readers import read_examples
from tripletune.data.seeding import seeded_random
from tripletune.data.writers import OutputFormat, write_examples
from tripletune.errors import ConfigError
from tripletune.schema import Example, Triplet

__all__ = ["NamePool", "augment_file", "collect_names", "swap_entities"]

_SHORTEST = 2
"""Characters of an entity that is replaced; a shorter one stands inside other words too often."""
_MOST_DRAWS = 8


@dataclass(frozen=True, slots=True)
class NamePool:
    """The entities that may take each other's places.

    Attributes:
        by_side: Those on each side of a relation ("作者 subject"), in the order in which they come.
        by_type: Those of each type.
    """

    by_side: Mapping[str, Sequence[str]]
    by_type: Mapping[str, Set[str]]


def augment_file(
    input_path: str | Path,
    output_path: str | Path,
    *,
    copies: int = 1,
    share: float = 0.5,
    seed: int = 42,
    input_format: str | None = None,
    output_format: OutputFormat | None = None,
) -> tuple[int, int]:
    """Writes each example followed by its copies; the input is read twice and never changed.

    Args:
        input_path: Training examples; validation data must not be augmented, nor split afterwards.
        output_path: The file to write.
        copies: Of each example, at most: one in which nothing could be replaced is left out.
        share: Of its entities to replace, above 0 to 1.
        seed: Same seed and text, same copies.
        input_format: None recognises it.
        output_format: As `write_examples`.

    Returns:
        How many examples were read, and how many copies made.

    Raises:
        ConfigError: `copies` is below 1, `share` is not above 0 and at most 1, or the output is the
            input.
        DataError: the input cannot be read.
        OutputError: the output cannot be written.
    """
    if copies < 1 or not 0 < share <= 1:
        raise ConfigError(
            f"copies {copies!r}, share {share!r}: needed are copies >= 1 and 0 < share <= 1"
        )
    check_output_path(Path(output_path), [Path(input_path)])
    names = collect_names(read_examples(input_path, format=input_format))
    num_read = 0

    def iter_augmented() -> Iterator[Example]:
        nonlocal num_read
        for example in read_examples(input_path, format=input_format):
            num_read += 1
            yield example
            for number in range(1, copies + 1):
                copy = swap_entities(example, names, share=share, seed=seed, number=number)
                if copy is not None:
                    yield copy

    written = write_examples(iter_augmented(), output_path, output_format=output_format)
    return num_read, written - num_read


def collect_names(examples: Iterable[Example]) -> NamePool:
    """The entities of the examples."""
    by_side: dict[str, dict[str, None]] = {}
    by_type: dict[str, set[str]] = {}
    for example in examples:
        for item, kinds in _find_kinds(example.triplets).items():
            for side in kinds.sides:
                by_side.setdefault(side, {})[item] = None
            for kind in kinds.types:
                by_type.setdefault(kind, set()).add(item)
    return NamePool({side: tuple(found) for side, found in by_side.items()}, by_type)


def swap_entities(
    example: Example, names: NamePool, *, share: float, seed: int, number: int = 1
) -> Example | None:
    """A copy with some entities replaced everywhere in text and triplets, or None.

    Entities stay that are inside another one or hold one, that the text does not have, or for which
    no other name of all their types can be drawn that is not in the text. Spans are dropped.

    Args:
        example: The text and its triplets.
        names: As `collect_names` gives them.
        share: The chance of each entity to be replaced; one is, where any can.
        seed: Same seed, text and number, same copy.
        number: Of the copy.
    """
    rng = seeded_random(seed, number, example.text)
    kinds = _find_kinds(example.triplets)
    slots = [value for triplet in example.triplets for _, value in triplet.object_slots]
    items = list(dict.fromkeys([*kinds, *slots]))
    loose = [item for item in kinds if _stands_alone(item, items) and item in example.text]
    rng.shuffle(loose)
    chosen = [item for item in loose if rng.random() < share] or loose[:1]
    swapped: dict[str, str] = {}
    for item in chosen:
        taken = [*items, *swapped.values()]
        name = _draw_name(kinds[item], names, example.text, taken, rng)
        if name is not None:
            swapped[item] = name
    if not swapped:
        return None
    pattern = re.compile("|".join(map(re.escape, swapped)))
    text = pattern.sub(lambda match: swapped[match.group()], example.text)
    # Items that overlap are torn apart by it, and neighbours can make a name once more.
    if any(text.count(swapped.get(item, item)) != example.text.count(item) for item in items):
        return None
    identifier = None if example.id is None else f"{example.id}-swap{number}"
    return Example(text, tuple(_rename(t, swapped) for t in example.triplets), identifier)


@dataclass(slots=True)
class _Kinds:
    """Of one item: its types, and the sides of relations on which it stands; in order."""

    types: dict[str, None] = field(default_factory=dict)
    sides: dict[str, None] = field(default_factory=dict)


def _find_kinds(triplets: Iterable[Triplet]) -> dict[str, _Kinds]:
    kinds: dict[str, _Kinds] = {}
    for triplet in triplets:
        sides = (
            (triplet.subject, triplet.subject_type, f"{triplet.relation} subject"),
            (triplet.object, triplet.object_type, f"{triplet.relation} object"),
        )
        for item, kind, side in sides:
            found = kinds.setdefault(item, _Kinds())
            found.sides[side] = None
            if kind:
                found.types[kind] = None
    return kinds


def _stands_alone(item: str, items: Sequence[str]) -> bool:
    return len(item) >= _SHORTEST and not any(
        other != item and (other in item or item in other) for other in items
    )


def _draw_name(
    kinds: _Kinds, names: NamePool, text: str, taken: Sequence[str], rng: random.Random
) -> str | None:
    likely = min((names.by_side.get(side, ()) for side in kinds.sides), key=len)
    for _ in range(_MOST_DRAWS if likely else 0):
        name = rng.choice(likely)
        is_of_types = all(name in names.by_type[kind] for kind in kinds.types)
        is_new = name not in text and name not in taken
        if is_new and is_of_types and _stands_alone(name, taken):
            return name
    return None


def _rename(triplet: Triplet, swapped: Mapping[str, str]) -> Triplet:
    slots = tuple((name, swapped.get(value, value)) for name, value in triplet.object_slots)
    return replace(
        triplet,
        subject=swapped.get(triplet.subject, triplet.subject),
        object=swapped.get(triplet.object, triplet.object),
        object_slots=slots,
        subject_span=None,
        object_span=None,
    )
