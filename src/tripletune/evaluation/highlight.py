"""A text cut into pieces, each with the kinds of triplets whose entities stand there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from tripletune.evaluation.spans import Key, find_mentions

__all__ = ["Segment", "split_text"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of text.

    Attributes:
        text: Its characters.
        kinds: The kinds of triplets that mention it, in the order they were given; maybe none.
    """

    text: str
    kinds: tuple[str, ...]


def split_text(text: str, triplets_by_kind: Mapping[str, Iterable[Key]]) -> list[Segment]:
    """The segments of a text, which joined give the text again.

    Every place where a subject or object stands is marked, because a triplet does not say which
    one it means.

    Args:
        text: The text.
        triplets_by_kind: Triplets under the name of their kind.

    Example:
        >>> split_text("甲在乙", {"missed": [("甲", "位于", "丙")]})
        [Segment(text='甲', kinds=('missed',)), Segment(text='在乙', kinds=())]
    """
    mentions = {
        kind: {
            mention
            for subject, _, object_ in triplets
            for name in (subject, object_)
            for mention in find_mentions(text, name)
        }
        for kind, triplets in triplets_by_kind.items()
    }
    limits = {0, len(text)}.union(*(mention for found in mentions.values() for mention in found))
    segments = []
    ordered = sorted(limits)
    for start, end in pairwise(ordered):
        kinds = tuple(
            kind
            for kind, found in mentions.items()
            if any(first <= start and end <= last for first, last in found)
        )
        segments.append(Segment(text[start:end], kinds))
    return segments
