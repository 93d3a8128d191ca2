"""A file of texts in, a file of triplets out: in order, restartable, in bounded memory.

Records are worked on in chunks that depend on nothing but their number, so that a job that was
killed and resumed computes the same batches and writes the same bytes as one that was not. Chunks
may go to several processes, each with its own GPU: `num_workers` that are started here, or those
that `torchrun` started. Results are written by one process, in the order of the input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tripletune.data.output_path import check_output_path
from tripletune.errors import ConfigError
from tripletune.extraction.job_input import InputFormat, InputRecord, iter_records
from tripletune.extraction.job_lock import OutputLock
from tripletune.extraction.job_output import (
    JobOutput,
    explained_writing,
    find_chunk_size,
    open_output,
)
from tripletune.extraction.job_pool import map_in_order
from tripletune.extraction.job_ranks import JobRanks, joined_ranks
from tripletune.schema import Extraction

__all__ = ["ExtractorFactory", "JobReport", "TextExtractor", "run_job"]

logger = logging.getLogger(__name__)

_Worker: TypeAlias = Callable[[Sequence[InputRecord], Callable[[], None]], list[Extraction]]


class TextExtractor(Protocol):
    """What a job needs of an `Extractor`."""

    def extract(
        self, texts: Sequence[str], *, on_text: Callable[[], None] | None = None
    ) -> list[Extraction]:
        """The extraction of each text, in order; `on_text` is called as each is done."""
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
    overwrite: bool = False,
    chunk_size: int = 128,
    num_workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
    on_text: Callable[[], None] | None = None,
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
        resume: Whether to go on with the output that is there, in chunks of its size.
        overwrite: Whether to replace an output that holds results; without, it is refused.
        chunk_size: Records that are worked on together.
        num_workers: Processes to start; 1 works in this one, and in those beside it that `torchrun`
            started.
        on_progress: Called with the number of records of a chunk and of new triplets when they
            are written; first with the records of earlier runs, but for a chunk that was broken
            off and is worked on again. Under torchrun by the first process alone.
        on_text: Called once for each record that this process or a worker that it started works on,
            when it is done and before its chunk is written.

    Returns:
        The same on every process.

    Raises:
        ConfigError: a number is below 1, the output is the input, belongs to another job or holds
            results already, both ways to treat those are set, or there are workers under torchrun.
        DataError: the input cannot be read.
        OutputError: the output cannot be written, or another process is writing it.
        ResourceError: a worker was ended from outside.
    """
    if chunk_size < 1 or num_workers < 1:
        raise ConfigError(
            f"chunk_size, workers: {chunk_size!r}, {num_workers!r}; need at least 1 of each"
        )
    if resume and overwrite:
        raise ConfigError("resume, overwrite: both are set; go on with the output or replace it")

    def begin() -> _Job:
        if input_path is not None:
            check_output_path(output_path, [input_path])
        records = iter_records(input_path, input_format=input_format, text_field=text_field)
        size = (find_chunk_size(output_path) if resume else None) or chunk_size
        job = {**settings, "input": str(input_path or "-"), "chunk_size": size}
        lock = OutputLock(output_path)
        try:
            output = open_output(output_path, job, resume=resume, overwrite=overwrite)
        except BaseException:
            lock.release()
            raise
        return _Job(records, output, lock, output_path, size, on_progress or _ignore)

    with joined_ranks() as ranks:
        if num_workers == 1:
            return _work_in_ranks(ranks, make_extractor, begin, on_text or _ignore)
        if ranks.size > 1:
            raise ConfigError(
                f"workers: {num_workers} in each of the {ranks.size} processes that torchrun "
                "started; use one of the two ways, torchrun or workers"
            )
    return _work_in_pool(make_extractor, begin(), num_workers, on_text or _ignore)


def _ignore(*numbers: int) -> None:
    """Progress that nobody follows."""


class _Job:
    """The input and the output of a job, in the one process that reads and writes."""

    def __init__(
        self,
        records: Iterator[InputRecord],
        output: JobOutput,
        lock: OutputLock,
        output_path: Path,
        chunk_size: int,
        notify: Callable[[int, int], None],
    ) -> None:
        self._output, self._output_path, self._notify = output, output_path, notify
        self._lock = lock
        self._num_resumed = self._num_records = output.num_done
        self._num_bad = self._num_triplets = 0
        skip = output.num_done // chunk_size * chunk_size
        # The chunk in which an earlier run was killed is done again as a whole.
        self._num_known = output.num_done - skip
        self._rest = islice(records, skip, None)
        self._chunk_size = chunk_size
        if skip:
            notify(skip, 0)

    def read_chunks(self, count: int) -> list[list[InputRecord]]:
        """The next chunks, fewer at the end of the input."""
        chunks = (list(islice(self._rest, self._chunk_size)) for _ in range(count))
        return [chunk for chunk in chunks if chunk]

    def write(self, found: list[Extraction]) -> None:
        """Takes the results of the chunk after those before."""
        new, self._num_known = found[self._num_known :], 0
        with explained_writing(self._output_path):
            self._output.write(new)
        num_triplets = sum(len(extraction.triplets) for extraction in new)
        self._num_records += len(new)
        self._num_bad += sum(bool(one.problems and not one.text) for one in new)
        self._num_triplets += num_triplets
        self._notify(len(found), num_triplets)

    def finish(self) -> JobReport:
        """Completes the output."""
        with explained_writing(self._output_path):
            self._output.finish()
        return JobReport(self._num_records, self._num_resumed, self._num_bad, self._num_triplets)

    def close(self) -> None:
        """Lets go of the output, complete or not."""
        self._output.close()
        self._lock.release()


def _work_in_ranks(
    ranks: JobRanks,
    make_extractor: ExtractorFactory,
    begin: Callable[[], _Job],
    on_text: Callable[[], None],
) -> JobReport:
    """Each process does one of every `ranks.size` chunks; what went wrong in one, all are told."""
    job: list[_Job] = []
    results: list[list[Extraction]] = []

    def go_on() -> list[list[InputRecord]]:
        for found in filter(None, results):
            job[0].write(found)
        return job[0].read_chunks(ranks.size)

    try:
        ranks.agree(lambda: job.append(begin()))
        extractor = make_extractor(ranks.rank)
        while chunks := ranks.agree(go_on):
            mine = chunks[ranks.rank] if ranks.rank < len(chunks) else []
            results = ranks.gather(_extract_chunk(extractor, mine, on_text))
        return ranks.agree(lambda: job[0].finish())
    finally:
        for begun in job:
            begun.close()


def _work_in_pool(
    make_extractor: ExtractorFactory, job: _Job, num_workers: int, on_text: Callable[[], None]
) -> JobReport:
    chunks = (chunk for some in iter(lambda: job.read_chunks(1), []) for chunk in some)
    make_worker = partial(_make_worker, make_extractor)
    try:
        with closing(map_in_order(make_worker, chunks, num_workers, on_text)) as results:
            for found in results:
                job.write(found)
        return job.finish()
    finally:
        job.close()


def _make_worker(make_extractor: ExtractorFactory, number: int) -> _Worker:
    return partial(_extract_chunk, make_extractor(number))


def _extract_chunk(
    extractor: TextExtractor, chunk: Sequence[InputRecord], on_text: Callable[[], None]
) -> list[Extraction]:
    num_left = len(chunk)

    def tell_once() -> None:
        """A text that is tried again is told of again; one that is blank, never."""
        nonlocal num_left
        if num_left:
            num_left -= 1
            on_text()

    usable = [place for place, record in enumerate(chunk) if not record.problem]
    found = [Extraction(record.text, id=record.id, problems=(record.problem,)) for record in chunk]
    texts = [chunk[place].text for place in usable]
    for place, extraction in zip(usable, _extract_safely(extractor, texts, tell_once), strict=True):
        found[place] = replace(extraction, id=chunk[place].id)
    while num_left:
        tell_once()
    return found


def _extract_safely(
    extractor: TextExtractor, texts: Sequence[str], on_text: Callable[[], None]
) -> list[Extraction]:
    """As the extractor does; when it fails, text by text, so that only the one at fault is lost."""
    if not texts:
        return []
    try:
        return extractor.extract(texts, on_text=on_text)
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        if len(texts) > 1:
            half = len(texts) // 2
            logger.warning("%d texts failed together (%s); trying halves", len(texts), error)
            _free_memory()
            return [
                *_extract_safely(extractor, texts[:half], on_text),
                *_extract_safely(extractor, texts[half:], on_text),
            ]
        return [Extraction(texts[0], problems=(f"failed: {type(error).__name__}: {error}",))]


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
