"""Training and validation files whose sentences and entities never meet."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tripletune.data.generator.domain import Domain, Phrasings
from tripletune.data.generator.name_filter import NameFilter
from tripletune.data.generator.names import Pool
from tripletune.data.generator.output import FileSummary, Line, write_files
from tripletune.data.generator.report import Measures, measure_sentence
from tripletune.data.generator.sentences import (
    Difficulty,
    Sentence,
    SentenceGenerator,
    render_line,
)
from tripletune.errors import ConfigError
from tripletune.schema import Example

__all__ = [
    "TRAIN_FILE",
    "UNSEEN_PHRASING_FILE",
    "VALIDATION_FILE",
    "DatasetPlan",
    "generate_examples",
    "write_dataset",
    "write_default_data",
]

TRAIN_FILE = "train_triplet.jsonl"
VALIDATION_FILE = "val_triplet.jsonl"
UNSEEN_PHRASING_FILE = "val_unseen_phrasing.jsonl"

# Sentences are made in chunks, each from a seed of its own, so that a file has the same bytes
# whatever the number of processes.
_CHUNK = 5_000
_MAX_FRUITLESS = 10_000


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """What to generate.

    Attributes:
        num_train: Training sentences.
        num_validation: Validation sentences, with entities that training never has.
        num_unseen_phrasing: Further validation sentences, whose phrasings training and validation
            never have either; 0 leaves no phrasing out of training.
        seed: The same plan and seed give the same bytes.
        difficulty: What the sentences are like.
        domain: Types, relations, phrasings and facts; the built-in ones when None.

    Raises:
        ConfigError: a number of sentences is too small.
    """

    num_train: int = 903
    num_validation: int = 101
    num_unseen_phrasing: int = 0
    seed: int = 42
    difficulty: Difficulty | None = None
    domain: Domain | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_train", 1), ("num_validation", 1), ("num_unseen_phrasing", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(
                    f"{name}: {value!r} is not a number of sentences; give at least {least}"
                )
        if self.num_unseen_phrasing and self.domain is not None:
            for side in ("seen", "unseen"):
                if not self.domain.restricted(side).relations:
                    raise ConfigError(
                        f"num_unseen_phrasing: {self.num_unseen_phrasing} sentences need phrasings "
                        "of their own, but no relation has two; give more sentences to a relation"
                    )


@dataclass(frozen=True, slots=True)
class _Stream:
    """One file's sentences: where names and phrasings come from, and names it must not hold."""

    plan: DatasetPlan
    pool: Pool
    phrasings: Phrasings
    banned: tuple[str, ...] = ()

    def open(self, chunk: int) -> SentenceGenerator:
        seed = str(self.plan.seed) + (f":{self.phrasings}" if self.phrasings != "all" else "")
        return SentenceGenerator(
            self.pool,
            f"{seed}:{chunk}" if chunk else seed,
            difficulty=self.plan.difficulty,
            domain=self.plan.domain,
            phrasings=self.phrasings,
        )


def write_dataset(
    plan: DatasetPlan,
    output_dir: str | Path,
    *,
    num_processes: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[FileSummary]:
    """Writes the files of a plan into a folder; says what they hold.

    No sentence occurs twice in all files, and no name of an open type in the validation sentences
    occurs anywhere in a training sentence, not even inside a longer name. All files are complete
    before any takes its place.

    Args:
        plan: What to generate.
        output_dir: Gets `train_triplet.jsonl`, `val_triplet.jsonl` and, when asked for,
            `val_unseen_phrasing.jsonl`.
        num_processes: How many processes make training sentences; the bytes do not depend on it.
            With more than one, a script that calls this needs the `if __name__ == "__main__"`
            guard.
        progress: Called with the name of a file, the lines written and the lines wanted.

    Raises:
        ConfigError: the domain cannot make that many different sentences.
        OutputError: the folder or a file cannot be written.
    """
    folder = Path(output_dir)
    held_out = _make_held_out(plan)
    names = tuple(sorted({n for lines in held_out.values() for line in lines for n in line.names}))
    seen = {line.digest for lines in held_out.values() for line in lines}
    stream = _Stream(plan, "train", "seen" if plan.num_unseen_phrasing else "all", names)
    with _Chunks(stream, num_processes) as chunks:
        train = _take_distinct(chunks, plan.num_train, seen)
        files: dict[Path, Iterable[Line]] = {folder / TRAIN_FILE: train}
        files.update({folder / name: lines for name, lines in held_out.items()})
        totals = [plan.num_train, *(len(lines) for lines in held_out.values())]
        return write_files(files, totals, progress=progress)


def write_default_data(
    output_dir: str | Path,
    *,
    seed: int = 42,
    num_train: int = 903,
    num_validation: int = 101,
    difficulty: Difficulty | None = None,
) -> tuple[FileSummary, FileSummary]:
    """Writes `train_triplet.jsonl` and `val_triplet.jsonl` into a folder; says what they hold.

    The same arguments give the same bytes.

    Raises:
        ConfigError: a number is below 1.
        OutputError: the folder or a file cannot be written.
    """
    plan = DatasetPlan(num_train, num_validation, seed=seed, difficulty=difficulty)
    train, validation = write_dataset(plan, output_dir)
    return train, validation


def generate_examples(plan: DatasetPlan) -> dict[str, Iterator[Example]]:
    """The examples of a plan by file name, training ones made as they are asked for.

    Raises:
        ConfigError: the domain cannot make that many different sentences.
    """
    held_out = _make_held_out(plan)
    names = tuple(sorted({n for lines in held_out.values() for line in lines for n in line.names}))
    seen = {line.digest for lines in held_out.values() for line in lines}
    stream = _Stream(plan, "train", "seen" if plan.num_unseen_phrasing else "all", names)
    chunks = itertools.chain.from_iterable(
        _iter_lines(stream, chunk) for chunk in itertools.count()
    )
    train = _take_distinct(chunks, plan.num_train, seen)
    files: dict[str, Iterable[Line]] = {TRAIN_FILE: train, **held_out}
    return {name: (line.example() for line in lines) for name, lines in files.items()}


def _make_held_out(plan: DatasetPlan) -> dict[str, list[Line]]:
    """The validation files, made first because training must avoid their names."""
    seen: set[bytes] = set()
    wanted: list[tuple[str, Phrasings, int]] = [
        (VALIDATION_FILE, "seen" if plan.num_unseen_phrasing else "all", plan.num_validation)
    ]
    if plan.num_unseen_phrasing:
        wanted.append((UNSEEN_PHRASING_FILE, "unseen", plan.num_unseen_phrasing))
    files = {}
    for name, phrasings, count in wanted:
        stream = _Stream(plan, "validation", phrasings)
        lines = itertools.chain.from_iterable(_iter_lines(stream, n) for n in itertools.count())
        files[name] = list(_take_distinct(lines, count, seen))
    return files


def _iter_lines(stream: _Stream, chunk: int) -> Iterator[Line]:
    """The lines of one chunk; held-out streams also carry the names to avoid in training."""
    source = stream.open(chunk)
    keeps_names = stream.pool == "validation"
    banned = NameFilter(stream.banned)
    fruitless = made = 0
    while made < _CHUNK:
        sentence = source.generate_sentence()
        if banned.occurs(sentence.text):
            fruitless += 1
            if fruitless > _MAX_FRUITLESS:
                raise ConfigError(
                    f"{_MAX_FRUITLESS} sentences in a row hold a name of the validation data; "
                    "give more names, or make a type shared that has few"
                )
            continue
        fruitless = 0
        made += 1
        names = tuple(source.open_names(sentence)) if keeps_names else ()
        yield _build_line(sentence, source, names)


def _build_line(sentence: Sentence, source: SentenceGenerator, names: tuple[str, ...]) -> Line:
    digest = hashlib.blake2b(sentence.text.encode(), digest_size=8).digest()
    text = render_line(sentence, source.domain)
    return Line(digest, text, measure_sentence(sentence, source.domain), names)


def _take_distinct(lines: Iterable[Line], count: int, seen: set[bytes]) -> Iterator[Line]:
    fruitless = 0
    for line in lines:
        if line.digest in seen:
            fruitless += 1
            if fruitless > _MAX_FRUITLESS:
                raise ConfigError(
                    f"{count} more different sentences are wanted, but {_MAX_FRUITLESS} attempts "
                    "in a row gave none; ask for fewer, or give more facts, names or phrasings"
                )
            continue
        fruitless = 0
        seen.add(line.digest)
        yield line
        count -= 1
        if not count:
            return


class _Chunks:
    """The lines of a stream, chunk after chunk, made by several processes ahead of their use."""

    def __init__(self, stream: _Stream, num_processes: int) -> None:
        self._stream = stream
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Iterator[Line]:
        if self._num_processes <= 1:
            chunks = (_iter_lines(self._stream, chunk) for chunk in itertools.count())
            return itertools.chain.from_iterable(chunks)
        # A progress bar has a thread of its own, and forking a process with threads may hang it.
        self._pool = ProcessPoolExecutor(
            self._num_processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._stream,),
        )
        return itertools.chain.from_iterable(self._iter_chunks(self._pool))

    def __exit__(self, *exception: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _iter_chunks(self, pool: ProcessPoolExecutor) -> Iterator[Iterator[Line]]:
        pending: deque[Future[list[_Packed]]] = deque()
        for chunk in itertools.count():
            pending.append(pool.submit(_make_chunk, chunk))
            if len(pending) > 2 * self._num_processes:
                packed = pending.popleft().result()
                yield (Line(digest, text, Measures._make(m)) for digest, text, m in packed)


# Plain tuples cross the border between processes several times faster than named ones.
_Packed = tuple[bytes, str, tuple[Any, ...]]
_worker_stream: _Stream | None = None


def _start_worker(stream: _Stream) -> None:
    global _worker_stream
    _worker_stream = stream


def _make_chunk(chunk: int) -> list[_Packed]:
    if _worker_stream is None:
        raise RuntimeError("the worker process was started without its stream")
    lines = _iter_lines(_worker_stream, chunk)
    return [(line.digest, line.text, tuple(line.measures)) for line in lines]
