"""Small schemas for the prompt: each text is asked for a few relations at a time.

At extraction a text is asked once for each part of the whole schema, and most parts hold none of
its relations. Training samples these questions: the schema is put in an order that does not depend
on the text's relations and cut into parts as at extraction; all parts with a relation of the text
are asked, and a share of the others, whose answer is that there is nothing. Which relations a
prompt lists thus tells nothing about whether the text has one of them.

Source: IEPile (Gui et al., 2024), section 3.2, for hard negatives: relations that are easily taken
for those of the text. Different here: they follow from types and wording, not from a table made by
hand; own relations are not picked out and mixed with negatives, because a model trained so has an
answer for every prompt; and every draw depends on the seed and the text alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from rapidfuzz import fuzz

from tripletune.data.relation_schema import Relation, RelationSchema
from tripletune.data.seeding import seeded_random
from tripletune.errors import ConfigError
from tripletune.schema import Example

__all__ = ["find_hard_negatives", "iter_prompted", "sample_subschemas", "split_relations"]

_MIN_SIMILARITY = 0.5


def sample_subschemas(
    example: Example,
    schema: RelationSchema,
    *,
    size: int = 4,
    num_hard: int = 2,
    num_empty: int = 1,
    seed: int = 42,
) -> tuple[tuple[str, ...], ...]:
    """The relation names to ask for, one tuple a prompt.

    Every relation of the example stands in exactly one tuple, so the answers together are its
    triplets. The tuples are parts of one `split_relations` of all relations, as at extraction: for
    half of the texts in the order of the schema, which gives the very prompts of extraction, for
    the others in an order of their own in which relations easily taken for each other are
    neighbours, so that a model learns to read the list, whatever schema it is given later.

    Asking for all parts would match extraction exactly, at the cost of as many prompts a text as
    the schema has parts, and a model that cannot yet read the list learns from mostly empty prompts
    to find nothing at all: with two for each other one, the embedded model did. So there are as
    many as others; where fewer parts are left (a small schema), all are asked, as at extraction.

    Args:
        example: The text and its triplets.
        schema: What relations there are; relations of the example that it lacks are asked too.
        size: How many relations a prompt names.
        num_hard: Look-alikes put behind a relation, and looked for in prompts without an answer.
        num_empty: Prompts without an answer for each prompt with one, or for a text without
            triplets. Of each `num_empty`, one holds a hard negative where there is one.
        seed: Same seed and text, same draw.

    Raises:
        ConfigError: `size` or `num_empty` is below 1, or `num_hard` is negative.
    """
    if size < 1 or num_hard < 0 or num_empty < 1:
        raise ConfigError(
            f"size {size}, num_hard {num_hard}, num_empty {num_empty}: needed are size >= 1, "
            "num_hard >= 0 and num_empty >= 1"
        )
    rng = seeded_random(seed, example.text)
    own = dict.fromkeys(triplet.relation for triplet in example.triplets)
    names = list(dict.fromkeys((*schema.names, *own)))
    table = find_hard_negatives(schema)
    if rng.random() < 0.5:
        names = _arrange_alike(names, table, num_hard, rng)
    parts = split_relations(names, size)
    full = [part for part in parts if not own.keys().isdisjoint(part)]
    empty = [part for part in parts if own.keys().isdisjoint(part)]
    rng.shuffle(empty)
    near = {other for name in own for other in table.get(name, ())[:num_hard]}
    empty.sort(key=near.isdisjoint)
    num_rounds = max(1, len(full))
    hard, rest = empty[:num_rounds], empty[num_rounds:]
    rng.shuffle(rest)
    return (*full, *hard, *rest[: num_rounds * (num_empty - 1)])


def split_relations(names: Sequence[str], size: int) -> tuple[tuple[str, ...], ...]:
    """The names in their order, `size` in each part; a last part below half is joined to its left.

    Raises:
        ConfigError: `size` is below 1.

    Example:
        >>> split_relations("abcdefghi", 4)
        (('a', 'b', 'c', 'd'), ('e', 'f', 'g', 'h', 'i'))
    """
    if size < 1:
        raise ConfigError(f"relations_per_prompt: {size!r} is too few; need at least 1")
    parts = [tuple(names[start : start + size]) for start in range(0, len(names), size)]
    if len(parts) > 1 and 2 * len(parts[-1]) < size:
        parts[-2:] = [parts[-2] + parts[-1]]
    return tuple(parts)


def iter_prompted(
    example: Example, schema: RelationSchema, **options: int
) -> Iterator[tuple[Example, tuple[str, ...]]]:
    """The example once for each of its sub-schemas, with the triplets that this one asks for.

    Args:
        example: The text and its triplets.
        schema: What relations there are.
        **options: As for `sample_subschemas`.
    """
    for names in sample_subschemas(example, schema, **options):
        kept = tuple(triplet for triplet in example.triplets if triplet.relation in names)
        yield Example(example.text, kept, example.id), names


@lru_cache(maxsize=8)
def find_hard_negatives(schema: RelationSchema) -> dict[str, tuple[str, ...]]:
    """For each relation the others that are easily taken for it, the most alike first.

    Alike are relations between the same types (1 for both ends, 0.5 for one) and of like wording
    (up to 1); pairs with less than 0.5 in all are not listed.
    """
    table = {}
    for relation in schema:
        scored = [(_compute_likeness(relation, other), other.name) for other in schema]
        alike = [
            (-score, name)
            for score, name in scored
            if score >= _MIN_SIMILARITY and name != relation.name
        ]
        table[relation.name] = tuple(name for _, name in sorted(alike))
    return table


def _arrange_alike(
    names: Sequence[str], table: Mapping[str, Sequence[str]], num_hard: int, rng: random.Random
) -> list[str]:
    """The names at random, but each with so many of its look-alikes, if still free, behind it."""
    arranged: dict[str, None] = {}
    for name in rng.sample(names, len(names)):
        if name not in arranged:
            near = [other for other in table.get(name, ()) if other not in arranged]
            arranged.update(dict.fromkeys((name, *near[:num_hard])))
    return list(arranged)


def _compute_likeness(one: Relation, other: Relation) -> float:
    types = 0.0
    if set(one.types) & set(other.types):
        types = 1.0
    else:
        subjects, objects = ({pair[side] for pair in one.types} for side in (0, 1))
        if any(pair[0] in subjects or pair[1] in objects for pair in other.types):
            types = 0.5
    return types + fuzz.ratio(one.name, other.name) / 100
