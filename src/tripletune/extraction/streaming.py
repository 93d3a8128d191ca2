"""Triplets as they are written, while the model goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tripletune.errors import ConfigError
from tripletune.extraction.generate import iter_greedy
from tripletune.extraction.guide import TripletGuide, score_lines
from tripletune.extraction.reading import place_line
from tripletune.extraction.windows import Window
from tripletune.schema import Span, Triplet

if TYPE_CHECKING:
    from tripletune.data.relation_schema import RelationSchema
    from tripletune.extraction.extractor import Extractor
    from tripletune.extraction.relation_parts import RelationPart

__all__ = ["stream_triplets"]


class _Stopped(Exception):
    """Ends the generation when nobody listens any more."""


class _Watcher:
    """Gives each triplet on as soon as its line is complete."""

    def __init__(
        self,
        extractor: Extractor,
        pieces: Sequence[tuple[int, Window, RelationPart]],
        limits: Sequence[int],
    ) -> None:
        self._extractor = extractor
        self._pieces = pieces
        self.guides = [
            extractor.build_guide(window.text, part, limit)
            for (_, window, part), limit in zip(pieces, limits, strict=True)
        ]
        self._scores: list[list[float]] = [[] for _ in pieces]
        self._num_given = [0] * len(pieces)
        self._seen: set[tuple[int, Triplet]] = set()

    def find_new(self, piece: int, *, is_finished: bool = False) -> list[tuple[int, Triplet]]:
        """The triplets of a window that are complete and were not given before."""
        guide: TripletGuide = self.guides[piece]
        lines = guide.find_lines()[0] if is_finished else guide.closed_lines
        new = lines[self._num_given[piece] :]
        if not new:
            return []
        self._num_given[piece] = len(lines)
        index, window, part = self._pieces[piece]
        constraint = part.find_constraint()
        form = constraint.build_form(window.text)
        scored = {
            line.text: line
            for line in reversed(
                score_lines(constraint.vocabulary, guide.token_ids, self._scores[piece])
            )
        }
        found = []
        for text in new:
            placed = place_line(scored[text], window.text, form, constraint)
            triplet = self._extractor.adjust(_move(placed, window.start))
            if triplet is not None and (index, triplet) not in self._seen:
                self._seen.add((index, triplet))
                found.append((index, triplet))
        return found

    def note(self, piece: int, score: float) -> None:
        """Keeps the log-probability of a token."""
        self._scores[piece].append(score)


async def stream_triplets(
    extractor: Extractor, texts: Sequence[str], schema: RelationSchema | None
) -> AsyncIterator[tuple[int, Triplet]]:
    """As `Extractor.stream`, the schema chosen."""
    if not extractor.constrained:
        raise ConfigError("stream: constrained is False; only constrained output can be streamed")
    if extractor.votes > 1:
        raise ConfigError(
            f"stream: votes is {extractor.votes}, which are counted when all are there; use votes=1"
        )
    pieces = [
        (index, window, part)
        for index, text in enumerate(texts)
        for window in extractor.iter_windows(text)
        for part in extractor.find_parts(schema)
    ]
    prompts, limits = extractor.encode_all([(window.text, part) for _, window, part in pieces])
    watcher = _Watcher(extractor, pieces, limits)
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    is_stopped = threading.Event()

    def give(item: Any) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def on_token(piece: int, token: int, score: float) -> None:
        if is_stopped.is_set():
            raise _Stopped
        watcher.note(piece, score)
        for pair in watcher.find_new(piece):
            give(pair)

    def generate() -> None:
        try:
            for piece, _ in iter_greedy(
                extractor.model,
                prompts,
                extractor.options,
                guides=watcher.guides,
                limits=limits,
                on_token=on_token,
            ):
                for pair in watcher.find_new(piece, is_finished=True):
                    give(pair)
                watcher.guides[piece].release()
            give(None)
        except _Stopped:
            pass
        except Exception as error:
            give(error)

    worker = threading.Thread(target=generate, name="tripletune-stream", daemon=True)
    worker.start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        is_stopped.set()


def _move(triplet: Triplet, offset: int) -> Triplet:
    def shift(span: Span | None) -> Span | None:
        return None if span is None else Span(span.start + offset, span.end + offset)

    return replace(
        triplet,
        subject_span=shift(triplet.subject_span),
        object_span=shift(triplet.object_span),
    )
