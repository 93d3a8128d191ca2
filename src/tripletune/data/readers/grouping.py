"""One example from the records that share a text, where a format spreads it over several."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from tripletune.data.readers.fields import merge_triplets
from tripletune.data.readers.problem import Problems
from tripletune.schema import Example, Triplet

__all__ = ["WINDOW", "group_by_text"]

WINDOW = 10_000
"""How many texts are kept open at once; a text that comes back later begins a new example."""


def group_by_text(
    examples: Iterator[Example], problems: Problems, *, window: int = WINDOW
) -> Iterator[Example]:
    """Examples with the triplets of all records of their text, in the order texts first come.

    Memory is bounded: the oldest text is given out once `window` others are open.
    """
    groups: OrderedDict[str, tuple[str | None, list[Triplet]]] = OrderedDict()
    for example in examples:
        group = groups.get(example.text)
        if group is not None:
            group[1].extend(example.triplets)
            continue
        if len(groups) == window:
            yield _close(groups, problems)
        groups[example.text] = (example.id, list(example.triplets))
    while groups:
        yield _close(groups, problems)


def _close(
    groups: OrderedDict[str, tuple[str | None, list[Triplet]]], problems: Problems
) -> Example:
    text, (identifier, triplets) = groups.popitem(last=False)
    return Example(text, merge_triplets(triplets, problems), identifier)
