"""Where the items of a triplet stand in the text they were taken from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

from tripletune.extraction.alignment import Alignment, align, iter_clusters, squeeze
from tripletune.schema import Span

__all__ = ["choose_pair", "find_spans", "ground_pair"]


def ground_pair(text: str, subject: str, object_: str) -> tuple[Span | None, Span | None]:
    """Spans of subject and object, those occurrences that stand closest to each other.

    An item that is not in the text has None.

    Example:
        >>> ground_pair("甲在乙。丙在乙。", "丙", "乙")
        (Span(start=4, end=5), Span(start=6, end=7))
    """
    subjects, objects = find_spans(text, subject), find_spans(text, object_)
    if subjects and objects:
        return choose_pair(subjects, objects)
    return (subjects[0] if subjects else None, objects[0] if objects else None)


def find_spans(text: str, item: str) -> list[Span]:
    """Every occurrence of an item, in order.

    Exact ones if there are any; else those that agree after NFKC and without white space, given
    as the original characters they cover.
    """
    exact = [Span(at, at + len(item)) for at in _find_all(text, item)]
    if exact:
        return exact
    needle = "".join(squeeze(item[start:end]) for start, end in iter_clusters(item))
    loose = _align_loosely(text)
    spans = []
    for at in _find_all(loose.written, needle):
        last = at + len(needle) - 1
        if loose.opens[at] and loose.closes[last]:
            spans.append(Span(loose.starts[at], loose.ends[last]))
    return spans


def choose_pair(subjects: Sequence[Span], objects: Sequence[Span]) -> tuple[Span, Span]:
    """The two spans with the fewest characters between them; overlapping only when all do.

    Of equally close ones, those with the subject before the object, then the first, are taken.

    Args:
        subjects: Occurrences of the subject in order, at least one, all of the same length.
        objects: Occurrences of the object, likewise.
    """
    starts = [span.start for span in objects]
    best = (_distance(subjects[0], objects[0]), subjects[0], objects[0])
    for subject in subjects:
        at = bisect_left(starts, subject.start)
        after = bisect_left(starts, subject.end)
        for index in {at - 1, at, after, _last_ending_by(objects, subject.start, at)}:
            if 0 <= index < len(objects):
                pair = (_distance(subject, objects[index]), subject, objects[index])
                best = min(best, pair)
    return best[1], best[2]


def _last_ending_by(spans: Sequence[Span], limit: int, at: int) -> int:
    index = at - 1
    while index >= 0 and spans[index].end > limit:
        index -= 1
    return index


def _distance(subject: Span, object_: Span) -> tuple[bool, int, bool]:
    gap = max(subject.start, object_.start) - min(subject.end, object_.end)
    return (gap < 0, gap, object_.start < subject.start)


def _find_all(text: str, needle: str) -> list[int]:
    found: list[int] = []
    at = text.find(needle) if needle else -1
    while at >= 0:
        found.append(at)
        at = text.find(needle, at + 1)
    return found


@lru_cache(maxsize=8)
def _align_loosely(text: str) -> Alignment:
    return align(text, squeeze)
