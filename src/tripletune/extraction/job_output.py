"""Results written as they come, so that a job that was killed can go on where it was.

JSONL is appended to, a record a line; a line that the kill left unfinished is cut off. Parquet
cannot be appended to: its parts lie in `OUT.parts/` until the job is done and are then put
together. Beside either lies `OUT.job.json`, which says what the job was, until it is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tripletune.errors import ConfigError, OutputError
from tripletune.schema import Extraction

__all__ = ["JobOutput", "explained_writing", "find_chunk_size", "open_output", "render_record"]

_BLOCK = 1 << 20
_OTHER_FORMATS = frozenset({".csv", ".tsv", ".xlsx"})


class JobOutput(Protocol):
    """Where results go.

    Attributes:
        num_done: Records that were there already when it was opened.
    """

    num_done: int

    def write(self, extractions: Sequence[Extraction]) -> None:
        """Adds results; they outlive the process from then on."""
        ...

    def finish(self) -> None:
        """Completes the output."""
        ...

    def close(self) -> None:
        """Lets go of the file, complete or not."""
        ...


def open_output(
    path: Path, job: Mapping[str, Any], *, resume: bool, overwrite: bool = False
) -> JobOutput:
    """The output of a job, JSONL or, by its name's ending, Parquet.

    Args:
        path: Where to write.
        job: What the job is; going on with another one's output is refused.
        resume: Whether to go on with what is there.
        overwrite: Whether to replace it instead; without either there may be no results yet.

    Raises:
        ConfigError: what is there belongs to another job, or would be lost; or the name promises
            another format.
        OutputError: it cannot be written.
    """
    marker = _find_marker(path)
    if path.suffix.lower() in _OTHER_FORMATS:
        raise ConfigError(
            f"output: {str(path)!r} would not be what its ending says; results are written as "
            "JSONL (.jsonl) or as Parquet (.parquet)"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        has_begun = resume and marker.is_file()
        if has_begun:
            _check_job(marker, job)
        elif resume and path.exists():
            raise ConfigError(
                f"output: {str(path)!r} is there but has no {marker.name}: the job is complete, "
                "or it is another file; name another output, or replace it (--overwrite)"
            )
        elif not overwrite:
            _check_nothing_is_lost(path, marker)
        kind = _ParquetOutput if path.suffix.lower() == ".parquet" else _JsonlOutput
        output = kind(path, marker, resume=has_begun)
        if not has_begun:
            marker.write_text(
                json.dumps(dict(job), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
            )
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"output: {str(path)!r} cannot be written ({error})") from error
    return output


@contextmanager
def explained_writing(path: Path) -> Iterator[None]:
    """Writing inside.

    Raises:
        OutputError: the disk is full, or what there was may be written no longer.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"output: {str(path)!r} cannot be written ({error.strerror or error}); make room or "
            "mend the permissions, then continue with --resume"
        ) from error


def render_record(extraction: Extraction) -> bytes:
    """The canonical line; one with lone surrogates, which UTF-8 has no form for, is escaped."""
    try:
        return (extraction.to_json() + "\n").encode("utf-8")
    except UnicodeEncodeError:
        return (json.dumps(extraction.to_record()) + "\n").encode("ascii")


def find_chunk_size(path: Path) -> int | None:
    """The `chunk_size` of the job whose output was begun; None when there is none."""
    size = _read_job(_find_marker(path)).get("chunk_size")
    return size if type(size) is int and size > 0 else None


def _find_marker(path: Path) -> Path:
    return path.with_name(path.name + ".job.json")


def _read_job(marker: Path) -> dict[str, Any]:
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _check_job(marker: Path, job: Mapping[str, Any]) -> None:
    known = _read_job(marker)
    for name in {*known, *job}:
        if known.get(name) != job.get(name):
            raise ConfigError(
                f"resume: {name} is {job.get(name)!r} now and was {known.get(name)!r} when "
                f"{marker.name} was written; use the same settings, or begin anew (--overwrite)"
            )


def _check_nothing_is_lost(path: Path, marker: Path) -> None:
    holds_lines = path.is_file() and path.stat().st_size > 0
    if not holds_lines and not _find_parts(path):
        return
    if marker.is_file():
        raise ConfigError(
            f"output: {str(path)!r} holds the results of a job that was not finished; go on with "
            "it (--resume), or replace it (--overwrite)"
        )
    raise ConfigError(
        f"output: {str(path)!r} is there already; name another file, or replace it (--overwrite)"
    )


def _find_parts(path: Path) -> list[Path]:
    """Those of a Parquet file that is not finished, in order."""
    return sorted(path.with_name(path.name + ".parts").glob("part-*.parquet"))


class _JsonlOutput:
    def __init__(self, path: Path, marker: Path, *, resume: bool) -> None:
        self._marker = marker
        if not resume:
            marker.unlink(missing_ok=True)
            path.write_bytes(b"")
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self.num_done, end = _count_lines(self._file)
        self._file.truncate(end)
        self._file.seek(end)

    def write(self, extractions: Sequence[Extraction]) -> None:
        self._file.write(b"".join(map(render_record, extractions)))
        self._file.flush()

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._marker.unlink(missing_ok=True)

    def close(self) -> None:
        # What a full disk did not take is still in the buffer, and was told of.
        with suppress(OSError):
            self._file.close()


def _count_lines(file: BinaryIO) -> tuple[int, int]:
    """Number of complete lines, and where the last of them ends."""
    num_lines, end, offset = 0, 0, 0
    while block := file.read(_BLOCK):
        num_lines += block.count(b"\n")
        if b"\n" in block:
            end = offset + block.rindex(b"\n") + 1
        offset += len(block)
    return num_lines, end


class _ParquetOutput:
    def __init__(self, path: Path, marker: Path, *, resume: bool) -> None:
        self._path, self._marker = path, marker
        self._folder = path.with_name(path.name + ".parts")
        if not resume:
            marker.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            for part in self._parts():
                part.unlink()
        self._folder.mkdir(exist_ok=True)
        self.num_done = sum(self._count(part) for part in self._parts())

    def write(self, extractions: Sequence[Extraction]) -> None:
        import pyarrow
        import pyarrow.parquet

        rows = [_to_row(extraction) for extraction in extractions]
        table = pyarrow.Table.from_pylist(rows, schema=_arrow_schema())
        part = self._folder / f"part-{len(self._parts()):08d}.parquet"
        temporary = part.with_suffix(".tmp")
        pyarrow.parquet.write_table(table, temporary)
        temporary.replace(part)

    def finish(self) -> None:
        import pyarrow.parquet

        temporary = self._path.with_name(self._path.name + ".tmp")
        with pyarrow.parquet.ParquetWriter(temporary, _arrow_schema()) as writer:
            for part in self._parts():
                writer.write_table(pyarrow.parquet.read_table(part))
        temporary.replace(self._path)
        self._marker.unlink(missing_ok=True)
        for entry in list(self._folder.iterdir()):
            entry.unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def close(self) -> None:
        """Nothing is held open between parts."""

    def _parts(self) -> list[Path]:
        return _find_parts(self._path)

    def _count(self, part: Path) -> int:
        import pyarrow.parquet

        return int(pyarrow.parquet.ParquetFile(part).metadata.num_rows)


def _to_row(extraction: Extraction) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(render_record(extraction).decode("utf-8"))
    text = record["text"].encode("utf-8", "replace").decode("utf-8")
    return {"id": None, "problems": [], **record, "text": text}


def _arrow_schema() -> Any:
    import pyarrow

    text, span = pyarrow.string(), pyarrow.list_(pyarrow.int64())
    triplet = pyarrow.struct(
        [
            ("subject", text),
            ("relation", text),
            ("object", text),
            ("subject_type", text),
            ("object_type", text),
            ("subject_span", span),
            ("object_span", span),
            ("confidence", pyarrow.float64()),
        ]
    )
    return pyarrow.schema(
        [
            ("id", text),
            ("text", text),
            ("triplets", pyarrow.list_(triplet)),
            ("problems", pyarrow.list_(text)),
        ]
    )
