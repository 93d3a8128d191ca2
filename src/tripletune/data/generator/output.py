"""Writes generated lines to files, all or none."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from tripletune.data.generator.report import DifficultyReport, Measures
from tripletune.errors import ConfigError, OutputError
from tripletune.schema import Example

__all__ = ["FileSummary", "Line", "write_files"]

_PROGRESS_STEP = 1_000


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        digest: What sentences are told apart by.
        text: The canonical line, without its line feed.
        measures: What the difficulty report counts.
        names: Names that may stand in no other file.
    """

    digest: bytes
    text: str
    measures: Measures
    names: tuple[str, ...] = ()

    def example(self) -> Example:
        """The example that the line holds."""
        return Example.from_record(json.loads(self.text))


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a written file holds.

    Attributes:
        path: The file.
        report: Counts of its sentences and what makes them hard.
        sample: The first example with a triplet, or the first one.
    """

    path: Path
    report: DifficultyReport
    sample: Example

    @property
    def num_examples(self) -> int:
        """Lines of the file."""
        return self.report.num_sentences

    @property
    def num_triplets(self) -> int:
        """Triplets in all lines."""
        return self.report.num_triplets

    @property
    def num_relations(self) -> int:
        """Different relation names."""
        return len(self.report.relations)

    @property
    def num_empty(self) -> int:
        """Lines without a triplet."""
        return self.report.by_num_triplets.get(0, 0)

    @property
    def mean_characters(self) -> float:
        """Mean length of a sentence."""
        return self.report.mean_characters


def write_files(
    files: Mapping[Path, Iterable[Line]],
    totals: Sequence[int],
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[FileSummary]:
    """Writes lines to files; no file is replaced before all are complete.

    Args:
        files: The lines of each file.
        totals: How many lines each file will have, for the progress.
        progress: Called with the name of a file, the lines written and the lines wanted.

    Raises:
        ConfigError: a file would be empty.
        OutputError: a folder or a file cannot be written.
    """
    summaries, places = [], []
    with ExitStack() as stack:
        for (path, lines), total in zip(files.items(), totals, strict=True):
            temporary, file = _open_beside(path)
            stack.callback(_discard, temporary)
            with file:
                summaries.append(_write_lines(path, file, lines, total, progress))
            temporary.chmod(0o644)
            places.append((temporary, path))
        for temporary, path in places:
            try:
                temporary.replace(path)
            except OSError as error:
                raise OutputError(
                    f"{path}: cannot be replaced ({error.strerror}); remove it or choose another "
                    "folder"
                ) from error
    return summaries


def _open_beside(path: Path) -> tuple[Path, TextIO]:
    """A new file in the folder where `path` will stand, and its handle."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    return Path(name), os.fdopen(handle, "w", encoding="utf-8", newline="\n")


def _write_lines(
    path: Path,
    file: TextIO,
    lines: Iterable[Line],
    total: int,
    progress: Callable[[str, int, int], None] | None,
) -> FileSummary:
    report = DifficultyReport()
    sample: Line | None = None
    for line in lines:
        try:
            file.write(line.text + "\n")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
        report.add(line.measures)
        if sample is None or (line.measures.num_triplets and not sample.measures.num_triplets):
            sample = line
        if progress is not None and report.num_sentences % _PROGRESS_STEP == 0:
            progress(path.name, report.num_sentences, total)
    if sample is None:
        raise ConfigError(f"{path}: no sentence to write; ask for at least 1")
    if progress is not None:
        progress(path.name, report.num_sentences, total)
    return FileSummary(path, report, sample.example())


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
