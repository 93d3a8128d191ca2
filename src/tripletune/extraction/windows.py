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

__all__ = ["Window", "choose_window", "iter_sentences", "iter_windows", "merge_windows"]

_SENTENCE = re.compile(r"[^。！？!?；;\n]*(?:[。！？!?；;\n]+[”’」』）)\"']*|\Z)")
_FEWEST_CHARS, _DEFAULT_CHARS, _MOST_CHARS = 64, 320, 512
_PLACES_SHOWN = 3
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


def iter_windows(
    text: str, *, max_chars: int, max_overlap_chars: int, max_sentences: int | None = None
) -> Iterator[Window]:
    """The windows of a document in order; together they cover all of it.

    Args:
        text: The document. One that fits is a single window.
        max_chars: Longest window; a sentence that is longer is cut, at clauses where possible.
        max_overlap_chars: A window repeats the last sentence of the one before if it is no longer
            than this, else its last clauses; nothing where that leaves no room for the next
            sentence. Windows of one sentence repeat nothing but clauses of a sentence that was cut.
        max_sentences: Most sentences of a window. None: as many as there is room for.

    Raises:
        ConfigError: `max_chars` or `max_sentences` is below 1, or the overlap is negative or not
            below `max_chars`.
    """
    if max_chars < 1 or not 0 <= max_overlap_chars < max_chars:
        raise ConfigError(
            f"max_chars, max_overlap_chars: {max_chars!r}, {max_overlap_chars!r}; need "
            "0 <= overlap < max_chars"
        )
    if max_sentences is not None and max_sentences < 1:
        raise ConfigError(f"max_sentences: {max_sentences!r} is too few; need at least 1")
    most = len(text) if max_sentences is None else max_sentences
    start = end = last = count = 0
    for piece_start, piece_end, is_cut in _iter_pieces(text, max_chars, max_overlap_chars):
        is_full = count == most and not is_cut
        if end > start and (piece_end - start > max_chars or is_full):
            yield Window(start, text[start:end])
            start, count = piece_start, int(is_cut)
            if most > 1 or is_cut:
                overlap = _find_overlap(text, last, end, max_overlap_chars)
                if piece_end - overlap <= max_chars:
                    start, count = overlap, 1
        last, end, count = piece_start, piece_end, count + (not is_cut)
    yield Window(start, text[start:end])


def choose_window(texts: Iterable[str]) -> tuple[int, int | None]:
    """The longest window, in characters and in sentences, for a model trained on these texts.

    A model reads badly what is unlike anything it was trained on: trained on single sentences of
    29 characters, it lost five triplets in six in windows of 320, and still one in 25 in windows
    of two sentences. So this is a length that 99 of 100 training texts do not exceed, within 64 to
    512, and the sentences that 95 of 100 have at most.
    """
    lengths, counts = [], []
    for text in texts:
        lengths.append(len(text))
        counts.append(sum(1 for _ in iter_sentences(text)))
    if not lengths:
        return _DEFAULT_CHARS, None
    num_chars = _find_quantile(lengths, 0.99)
    return min(max(num_chars, _FEWEST_CHARS), _MOST_CHARS), max(1, _find_quantile(counts, 0.95))


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
    the lines of every window in order; a problem is named once, with its first windows.
    """
    found: dict[Triplet, Triplet] = {}
    outputs: list[str] = []
    places: dict[str, dict[str, None]] = {}
    for window, extraction in parts:
        if extraction.output.strip() not in ("", EMPTY_TARGET):
            outputs.append(extraction.output)
        for problem in extraction.problems:
            place = f"{window.start} to {window.start + len(window.text)}"
            places.setdefault(problem, {})[place] = None
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
    problems = tuple(_locate(problem, list(where)) for problem, where in places.items())
    return Extraction(text, tuple(found.values()), output=output, problems=problems)


def _locate(problem: str, places: Sequence[str]) -> str:
    shown = ", ".join(places[:_PLACES_SHOWN])
    num_more = len(places) - _PLACES_SHOWN
    more = f" and {num_more} more windows" if num_more > 0 else ""
    return f"characters {shown}{more}: {problem}"


def _find_quantile(values: list[int], share: float) -> int:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _iter_pieces(
    text: str, max_chars: int, max_overlap_chars: int
) -> Iterator[tuple[int, int, bool]]:
    """Sentences, those that are too long cut behind a clause or, without one, anywhere.

    Each comes with whether it goes on with the sentence before.
    """
    for start, end in iter_sentences(text):
        is_cut = False
        # What goes on with a sentence leaves room for what is repeated of it.
        while end - start > max_chars - is_cut * max_overlap_chars:
            limit = start + max_chars - max_overlap_chars
            cut = max(text.rfind(mark, start, limit) for mark in _CLAUSE_ENDS) + 1
            cut = cut if cut > start else limit
            yield start, cut, is_cut
            start, is_cut = cut, True
        yield start, end, is_cut


def _find_overlap(text: str, start: int, end: int, max_chars: int) -> int:
    """Where the next window starts: within the last piece, [start, end), of the one before."""
    if end - start <= max_chars:
        return start
    places = [text.find(mark, end - max_chars, end - 1) for mark in _CLAUSE_ENDS]
    found = [place for place in places if place >= 0]
    return min(found) + 1 if found else end


def _shift(span: Span | None, offset: int) -> Span | None:
    return None if span is None else Span(span.start + offset, span.end + offset)
