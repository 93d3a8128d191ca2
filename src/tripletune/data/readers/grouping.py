"""One example from the records that share a text, where a format spreads it over several."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from tripletune.data.readers.fields import TripletKey, add_new_triplets
from tripletune.data.readers.problem import Problems, shorten
from tripletune.schema import Example, Triplet

__all__ = ["WINDOW", "group_by_text"]

WINDOW = 10_000
"""How many texts are kept open at once; a text that comes back later begins a new example."""


def group_by_text(
    examples: Iterator[Example], problems: Problems, *, window: int = WINDOW
) -> Iterator[Example]:
    """Examples with the triplets of all records of their text, in the order texts first come.

    Memory is bounded: the oldest text is given out once `window` others are open; one that comes
    back after that is reported. With each example, `problems.line` is the line of its first record.
    """
    groups: OrderedDict[str, _Group] = OrderedDict()
    closed: _Seen | None = None
    for example in examples:
        group = groups.get(example.text)
        if group is None:
            group = _Group(problems.line, example.id, {})
            if len(groups) == window:
                closed = closed or _Seen()
                closed.add(next(iter(groups)))
                yield _close(groups, problems)
                problems.line = group.line
            if closed is not None and example.text in closed:
                problems.change(
                    "text_again",
                    f"the text {shorten(example.text)} also stood before the last {window} texts, "
                    "so its triplets are in two examples; tripletune data fix --contradictory "
                    "merge joins them",
                    value=example.text,
                )
            groups[example.text] = group
        add_new_triplets(group.triplets, example.triplets, problems)
    while groups:
        yield _close(groups, problems)


class _Group(NamedTuple):
    line: int | None
    identifier: str | None
    triplets: dict[TripletKey, Triplet]


class _Seen:
    """A Bloom filter of 16 MiB: of ten million texts 2 in 100 new ones are taken for old ones."""

    def __init__(self) -> None:
        self._bits = bytearray(1 << 24)

    def add(self, text: str) -> None:
        for place in _find_places(text):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, text: str) -> bool:
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _find_places(text))


def _find_places(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    return number >> 37, number & ((1 << 27) - 1)


def _close(groups: OrderedDict[str, _Group], problems: Problems) -> Example:
    text, group = groups.popitem(last=False)
    problems.line = group.line
    return Example(text, tuple(group.triplets.values()), group.identifier)
