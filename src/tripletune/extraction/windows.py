"""Long documents as overlapping windows of whole sentences, and the merging of what they hold.

A window starts with the last sentence of the one before, so that a triplet whose parts stand in
neighbouring sentences is in one of them whole:

```
sentences   1 2 3 4 5 6 7
window 1    x x x
window 2        x x x
window 3            x x x
```
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tripletune.data.linearize import EMPTY_TARGET
from tripletune.errors import ConfigError
from tripletune.schema import Extraction, Span, Triplet

__all__ = ["Window", "choose_window_chars", "iter_sentences", "iter_windows", "merge_windows"]

_SENTENCE = re.compile(r"[^。！？!?；;\n]*(?:[。！？!?；;\n]+[”’」』）)\"']*|\Z)")
_FEWEST_CHARS, _DEFAULT_CHARS, _MOST_CHARS = 64, 320, 512
_CLAUSE_ENDS = "，,、：: \t\u3000"


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a document.

    Attributes:
        start: Where it starts in the document.
        text: Its text.
    """

    start: int
    text: str


def iter_windows(text: str, *, max_chars: int, max_overlap_chars: int) -> Iterator[Window]:
    """The windows of a document in order; together they cover all of it.

    Args:
        text: The document. One that fits is a single window.
        max_chars: Longest window; a sentence that is longer is cut, at clauses where possible.
        max_overlap_chars: A window repeats the last sentence of the one before if it is no longer
            than this, else its last clauses; nothing where that leaves no room for the next
            sentence.

    Raises:
        ConfigError: `max_chars` is below 1, or the overlap is negative or not below it.
    """
    if max_chars < 1 or not 0 <= max_overlap_chars < max_chars:
        raise ConfigError(
            f"max_chars, max_overlap_chars: {max_chars!r}, {max_overlap_chars!r}; need "
            "0 <= overlap < max_chars"
        )
    if len(text) <= max_chars:
        yield Window(0, text)
        return
    start, end, last = 0, 0, 0
    for piece_start, piece_end in _iter_pieces(text, max_chars, max_overlap_chars):
        if piece_end - start > max_chars:
            yield Window(start, text[start:end])
            start = _find_overlap(text, last, end, max_overlap_chars)
            if piece_end - start > max_chars:
                start = piece_start
        last, end = piece_start, piece_end
    yield Window(start, text[start:end])


def choose_window_chars(lengths: Sequence[int]) -> int:
    """The window for a model trained on texts of these lengths, in characters.

    A model reads badly what is much longer than anything it was trained on: with sentences of 29
    characters on average, windows of 320 lost five triplets in six, windows of 64 one in
    twenty. So this is a length that 99 of 100 training texts do not exceed, within 64 to 512.
    """
    if not lengths:
        return _DEFAULT_CHARS
    place = min(len(lengths) - 1, math.ceil(0.99 * len(lengths)) - 1)
    return min(max(sorted(lengths)[place], _FEWEST_CHARS), _MOST_CHARS)


def iter_sentences(text: str) -> Iterator[tuple[int, int]]:
    """Half-open ranges of the sentences of a text, their ends included; they cover all of it."""
    at = 0
    while at < len(text):
        match = _SENTENCE.match(text, at)
        end = match.end() if match and match.end() > at else len(text)
        yield at, end
        at = end


def merge_windows(text: str, parts: Iterable[tuple[Window, Extraction]]) -> Extraction:
    """One extraction of the document, spans in its coordinates.

    A triplet found in several windows counts once, where its confidence is highest. `output` has
    the lines of every window in order.
    """
    found: dict[Triplet, Triplet] = {}
    outputs: list[str] = []
    problems: list[str] = []
    for window, extraction in parts:
        if extraction.output.strip() not in ("", EMPTY_TARGET):
            outputs.append(extraction.output)
        problems += [
            f"characters {window.start} to {window.start + len(window.text)}: {problem}"
            for problem in extraction.problems
        ]
        for triplet in extraction.triplets:
            moved = replace(
                triplet,
                subject_span=_shift(triplet.subject_span, window.start),
                object_span=_shift(triplet.object_span, window.start),
            )
            known = found.get(triplet)
            if known is None or (known.confidence or 0.0) < (moved.confidence or 0.0):
                found[triplet] = moved
    output = "\n".join(outputs) or EMPTY_TARGET
    return Extraction(text, tuple(found.values()), output=output, problems=tuple(problems))


def _iter_pieces(text: str, max_chars: int, max_overlap_chars: int) -> Iterator[tuple[int, int]]:
    """Sentences, those that are too long cut behind a clause or, without one, anywhere."""
    for start, end in iter_sentences(text):
        while end - start > max_chars:
            limit = start + max_chars - max_overlap_chars
            cut = max(text.rfind(mark, start, limit) for mark in _CLAUSE_ENDS) + 1
            cut = cut if cut > start else limit
            yield start, cut
            start = cut
        yield start, end


def _find_overlap(text: str, start: int, end: int, max_chars: int) -> int:
    """Where the next window starts: within the last piece, [start, end), of the one before."""
    if end - start <= max_chars:
        return start
    places = [text.find(mark, end - max_chars, end - 1) for mark in _CLAUSE_ENDS]
    found = [place for place in places if place >= 0]
    return min(found) + 1 if found else end


def _shift(span: Span | None, offset: int) -> Span | None:
    return None if span is None else Span(span.start + offset, span.end + offset)
