"""Parquet files, saved Hugging Face data sets, and any rows already in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tripletune.data.readers.source import Head, check_file
from tripletune.errors import DataError, MissingPackageError

__all__ = ["clean_row", "iter_arrow_rows", "iter_parquet_rows", "score_dataset", "score_parquet"]

_BATCH_ROWS = 4096
_PARQUET_MAGIC = b"PAR1"


def score_parquet(head: Head) -> int:
    """Above any line format when the file begins as Parquet does."""
    return 1000 if head.magic == _PARQUET_MAGIC else 0


def score_dataset(head: Head) -> int:
    """Above any other when the folder is a data set saved by `save_to_disk`."""
    if not head.path.is_dir():
        return 0
    names = ("dataset_info.json", "dataset_dict.json")
    return 1000 * any((head.path / name).is_file() for name in names)


def iter_parquet_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file as JSON-like objects, a batch at a time.

    Raises:
        DataError: the file is damaged.
    """
    check_file(path)
    arrow = _import_arrow()
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from _iter_batch(batch)
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"cannot be read as Parquet: {_first_line(error)}", path=path) from error


def iter_arrow_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set folder that `datasets` saved.

    Raises:
        DataError: the folder holds several splits, or its files are damaged.
    """
    arrow = _import_arrow()
    if (path / "dataset_dict.json").is_file():
        splits = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
        raise DataError(
            f"holds the splits {', '.join(splits)}; name one of these folders", path=path
        )
    for file in _list_arrow_files(path):
        try:
            with arrow.memory_map(str(file)) as source:
                for batch in arrow.ipc.open_stream(source):
                    yield from _iter_batch(batch)
        except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise DataError(f"cannot be read as Arrow: {_first_line(error)}", path=file) from error


def clean_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the nulls that columns force on it, and object slots as an object again.

    Values that JSON does not have become text: dates and decimals as they are written, bytes as
    UTF-8, or as Python shows them where they are none.
    """
    return {name: _clean(name, value) for name, value in row.items() if value is not None}


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return clean_row(value)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        items = list(value)
        if name == "object_slots":
            return {item["name"]: item["value"] for item in items if _is_slot(item)}
        return [_clean("", item) for item in items]
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode("utf-8")
        return repr(value)
    return str(value)


def _is_slot(item: object) -> bool:
    return isinstance(item, Mapping) and {"name", "value"} <= set(item)


def _iter_batch(batch: Any) -> Iterator[Mapping[str, Any]]:
    # Damaged offsets would make reading the values reach outside the file, and end the process.
    batch.validate(full=True)
    for row in batch.to_pylist():
        yield clean_row(row)


def _list_arrow_files(path: Path) -> list[Path]:
    state = path / "state.json"
    try:
        listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return [path / entry["filename"] for entry in listed]
    except FileNotFoundError:
        return sorted(path.glob("*.arrow"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"is no list of data files: {_first_line(error)}", path=state) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _import_arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingPackageError(
            "reading Parquet and saved data sets needs pyarrow: pip install pyarrow"
        ) from error
    return pyarrow
