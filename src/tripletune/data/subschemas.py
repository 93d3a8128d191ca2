"""Small schemas for the prompt: each sentence is asked for a few relations at a time.

Source: IEPile (Gui et al., 2024), section 3.2: a sentence's own relations are mixed with relations
that are easily taken for them and with random ones, then cut into parts of a fixed size. Different
here: which relations are easily confused follows from types and wording, not from a table made by
hand, and every draw depends on the seed and the text alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rapidfuzz import fuzz

from tripletune.data.relation_schema import Relation, RelationSchema
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
    num_random: int = 4,
    seed: int = 42,
) -> tuple[tuple[str, ...], ...]:
    """The relation names to ask for, one tuple a prompt.

    Every relation of the example stands in exactly one tuple, so the answers together are its
    triplets. The tuples have the sizes that `split_relations` gives, as at extraction.

    Args:
        example: The text and its triplets.
        schema: What relations there are; relations of the example that it lacks are asked too.
        size: How many relations a prompt names.
        num_hard: Hard negatives for each relation of the example.
        num_random: Further relations drawn at random; more where a prompt would not be full.
        seed: Same seed and text, same draw.

    Raises:
        ConfigError: `size` is below 1, or a number is negative.
    """
    if size < 1 or num_hard < 0 or num_random < 0:
        raise ConfigError(
            f"size {size}, num_hard {num_hard}, num_random {num_random}: needed are size >= 1 and "
            "numbers >= 0"
        )
    digest = hashlib.blake2b(f"{seed}\n{example.text}".encode(), digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest, "big"))
    chosen = list(dict.fromkeys(triplet.relation for triplet in example.triplets))
    hard = find_hard_negatives(schema)
    for name in tuple(chosen):
        near = [other for other in hard.get(name, ()) if other not in chosen]
        chosen.extend(near[:num_hard])
    others = [name for name in schema.names if name not in chosen]
    chosen.extend(rng.sample(others, min(max(num_random, size - len(chosen)), len(others))))
    rng.shuffle(chosen)
    return split_relations(chosen, size)


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


def _compute_likeness(one: Relation, other: Relation) -> float:
    types = 0.0
    if set(one.types) & set(other.types):
        types = 1.0
    else:
        subjects, objects = ({pair[side] for pair in one.types} for side in (0, 1))
        if any(pair[0] in subjects or pair[1] in objects for pair in other.types):
            types = 0.5
    return types + fuzz.ratio(one.name, other.name) / 100
