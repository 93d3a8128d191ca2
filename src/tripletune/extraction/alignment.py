"""A text in another written form, with the way back to the original characters.

A tokenizer or a comparison may rewrite characters: NFKC makes `，` a `,`, one `㎏` two letters and
two characters `e` + accent one `é`. The text is therefore cut into clusters that are rewritten
each on its own, and every written character knows the cluster it comes from:

```
original     重  ５  ㎏            clusters [0,1) [1,2) [2,3)
written      重  5   k  g
starts       0   1   2  2
ends         1   2   3  3
```
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Alignment", "align", "iter_clusters", "squeeze"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """A written form and, for each of its characters, the cluster of the original behind it.

    Attributes:
        written: The rewritten text.
        starts: Start of the cluster of each written character, in the original.
        ends: End of that cluster, exclusive.
        opens: Whether the written character is the first of its cluster.
        closes: Whether it is the last of its cluster.
    """

    written: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    opens: tuple[bool, ...]
    closes: tuple[bool, ...]


def align(text: str, rewrite: Callable[[str], str]) -> Alignment:
    """The alignment of a text with its written form.

    Args:
        text: The original.
        rewrite: Gives the written form of one cluster; "" drops it.

    Example:
        >>> align("５㎏", squeeze).written
        '5kg'
    """
    written: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    opens: list[bool] = []
    closes: list[bool] = []
    for start, end in iter_clusters(text):
        form = rewrite(text[start:end])
        last = len(form) - 1
        for index, character in enumerate(form):
            written.append(character)
            starts.append(start)
            ends.append(end)
            opens.append(index == 0)
            closes.append(index == last)
    return Alignment("".join(written), tuple(starts), tuple(ends), tuple(opens), tuple(closes))


def iter_clusters(text: str) -> Iterator[tuple[int, int]]:
    """Half-open ranges of a base character and the marks that Unicode composes with it."""
    start = 0
    for index in range(1, len(text)):
        if not _extends(text[index]):
            yield start, index
            start = index
    if text:
        yield start, len(text)


@lru_cache(maxsize=65536)
def squeeze(cluster: str) -> str:
    """NFKC of a cluster without white space: the form in which items are compared loosely."""
    return "".join(unicodedata.normalize("NFKC", cluster).split())


@lru_cache(maxsize=65536)
def _extends(character: str) -> bool:
    form = unicodedata.normalize("NFKC", character)
    is_jamo_tail = "\u1160" <= form[0] <= "\u11ff"
    return is_jamo_tail or unicodedata.category(form[0]).startswith("M")
