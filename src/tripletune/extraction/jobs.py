"""A file of texts in, a file of triplets out: in order, restartable, in bounded memory.

Records are worked on in chunks that depend on nothing but their number, so that a job that was
killed and resumed computes the same batches and writes the same bytes as one that was not. Chunks
may go to several processes, each with its own GPU; results are written in the order of the input.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from tripletune.errors import ConfigError
from tripletune.extraction.job_input import InputFormat, InputRecord, iter_records
from tripletune.extraction.job_output import open_output
from tripletune.schema import Extraction

__all__ = ["ExtractorFactory", "JobReport", "TextExtractor", "run_job"]

logger = logging.getLogger(__name__)

_CHUNKS_IN_FLIGHT = 2


class TextExtractor(Protocol):
    """What a job needs of an `Extractor`."""

    def extract(self, texts: Sequence[str]) -> list[Extraction]:
        """The extraction of each text, in order."""
        ...


class ExtractorFactory(Protocol):
    """Makes an extractor in the process and on the GPU that it will work on.

    Must be picklable when there are several workers.
    """

    def __call__(self, worker: int) -> TextExtractor:
        """The extractor of the worker with this number, from 0."""
        ...


@dataclass(frozen=True, slots=True)
class JobReport:
    """What a job did.

    Attributes:
        num_records: Records in the output, those of earlier runs included.
        num_resumed: Those that were there already.
        num_bad: Records of this run that could not be used.
        num_triplets: Triplets found in this run.
    """

    num_records: int
    num_resumed: int
    num_bad: int
    num_triplets: int


def run_job(
    make_extractor: ExtractorFactory,
    *,
    input_path: Path | None,
    output_path: Path,
    settings: dict[str, Any],
    input_format: InputFormat | None = None,
    text_field: str | None = None,
    resume: bool = False,
    chunk_size: int = 128,
    num_workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> JobReport:
    """Extracts from every record of a file.

    A record that cannot be used, or on which the model fails, has no triplets and says so in
    `problems`.

    Args:
        make_extractor: Makes the extractor of each worker.
        input_path: See `iter_records`.
        output_path: JSONL, or Parquet by its ending.
        settings: What else the results depend on; a resumed job must agree.
        input_format: See `iter_records`.
        text_field: Likewise.
        resume: Whether to go on with the output that is there.
        chunk_size: Records that are worked on together.
        num_workers: Processes; 1 works in this one.
        on_progress: Called with the number of records and of triplets that were just written;
            first with the records of earlier runs.

    Raises:
        ConfigError: a number is below 1, or the output belongs to another job.
        DataError: the input cannot be read.
        OutputError: the output cannot be written.
    """
    if chunk_size < 1 or num_workers < 1:
        raise ConfigError(
            f"chunk_size, workers: {chunk_size!r}, {num_workers!r}; need at least 1 of each"
        )
    records = iter_records(input_path, input_format=input_format, text_field=text_field)
    job = {**settings, "input": str(input_path or "-"), "chunk_size": chunk_size}
    output = open_output(output_path, job, resume=resume)
    notify = on_progress or _ignore
    num_resumed = num_records = output.num_done
    num_bad = num_triplets = 0
    skip = num_resumed // chunk_size * chunk_size
    num_known = num_resumed - skip
    try:
        if num_resumed:
            notify(num_resumed, 0)
        deque(islice(records, skip), maxlen=0)
        for found in _work(make_extractor, _iter_chunks(records, chunk_size), num_workers):
            new, num_known = found[num_known:], 0
            output.write(new)
            num_records += len(new)
            num_bad += sum(bool(extraction.problems and not extraction.text) for extraction in new)
            num_written = sum(len(extraction.triplets) for extraction in new)
            num_triplets += num_written
            notify(len(new), num_written)
        output.finish()
    finally:
        output.close()
    return JobReport(num_records, num_resumed, num_bad, num_triplets)


def _ignore(num_records: int, num_triplets: int) -> None:
    """Progress that nobody follows."""


def _iter_chunks(records: Iterator[InputRecord], size: int) -> Iterator[list[InputRecord]]:
    while chunk := list(islice(records, size)):
        yield chunk


def _work(
    make_extractor: ExtractorFactory, chunks: Iterable[list[InputRecord]], num_workers: int
) -> Iterator[list[Extraction]]:
    if num_workers == 1:
        extractor = make_extractor(0)
        for chunk in chunks:
            yield _extract_chunk(extractor, chunk)
        return
    context = get_context("spawn")
    numbers = context.SimpleQueue()
    for worker in range(num_workers):
        numbers.put(worker)
    with ProcessPoolExecutor(
        num_workers, context, initializer=_start_worker, initargs=(make_extractor, numbers)
    ) as pool:
        waiting: deque[Future[list[Extraction]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_extract_in_worker, chunk))
            if len(waiting) >= num_workers * _CHUNKS_IN_FLIGHT:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_worker_extractor: list[TextExtractor] = []


def _start_worker(make_extractor: ExtractorFactory, numbers: Any) -> None:
    _worker_extractor[:] = [make_extractor(numbers.get())]


def _extract_in_worker(chunk: list[InputRecord]) -> list[Extraction]:
    return _extract_chunk(_worker_extractor[0], chunk)


def _extract_chunk(extractor: TextExtractor, chunk: Sequence[InputRecord]) -> list[Extraction]:
    usable = [place for place, record in enumerate(chunk) if not record.problem]
    found = [Extraction(record.text, id=record.id, problems=(record.problem,)) for record in chunk]
    texts = [chunk[place].text for place in usable]
    for place, extraction in zip(usable, _extract_safely(extractor, texts), strict=True):
        found[place] = replace(extraction, id=chunk[place].id)
    return found


def _extract_safely(extractor: TextExtractor, texts: Sequence[str]) -> list[Extraction]:
    """As the extractor does; when it fails, text by text, so that only the one at fault is lost."""
    if not texts:
        return []
    try:
        return extractor.extract(texts)
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        if len(texts) > 1:
            half = len(texts) // 2
            logger.warning("%d texts failed together (%s); trying halves", len(texts), error)
            _free_memory()
            return [
                *_extract_safely(extractor, texts[:half]),
                *_extract_safely(extractor, texts[half:]),
            ]
        return [Extraction(texts[0], problems=(f"failed: {type(error).__name__}: {error}",))]


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
