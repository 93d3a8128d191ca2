"""The header of a GGUF file, read once.

Configuration, tokenizer and weights are each taken from the file by a reader of their own, and a
reader goes through every word of the vocabulary first: seconds for 262,144 of them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["forget_headers", "headers_read_once"]


@contextmanager
def headers_read_once() -> Iterator[None]:
    """Inside, `gguf.GGUFReader` gives the reader of the last file again until the file changes."""
    package: Any = importlib.import_module("gguf")
    plain = package.GGUFReader

    def open_once(path: str | os.PathLike[str], *args: Any) -> Any:
        return _open_reader(Path(path), Path(path).stat().st_mtime_ns)

    package.GGUFReader = open_once
    try:
        yield
    finally:
        package.GGUFReader = plain


def forget_headers() -> None:
    """Lets go of the reader that is kept, whose fields take hundreds of megabytes."""
    _open_reader.cache_clear()


@lru_cache(maxsize=1)
def _open_reader(path: Path, changed: int) -> Any:
    from gguf.constants import GGUFValueType
    from gguf.gguf_reader import GGUFReader

    class PlainReader(GGUFReader):
        """The package's reader without its calls for each word of a vocabulary."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = np.asarray(mapped)  # slices of a `memmap` cost twice as much

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            parts = _read_array(self, orig_offs) if raw_type == GGUFValueType.ARRAY else None
            return super()._get_field_parts(orig_offs, raw_type) if parts is None else parts

    return PlainReader(path)


def _read_array(reader: Any, start: int) -> tuple[int, list[Any], list[int], list[Any]] | None:
    """An array of strings or of numbers as the package has it; None for any other.

    That is its size in bytes, its parts (kind of item, count, then each item, a string with its
    length before it), which of them are values, and the types.

    Raises:
        IndexError: the file ends before the array does.
    """
    from gguf.constants import GGUFValueType

    header = [reader._get(start, np.uint32), reader._get(start + 4, np.uint64)]
    kind, count, place = GGUFValueType(header[0][0]), int(header[1][0]), start + 12
    types, data = [GGUFValueType.ARRAY, kind], reader.data
    if reader.byte_order != "I" or not count:
        return None
    if kind in reader.gguf_scalar_to_np:
        values = reader._get(place, reader.gguf_scalar_to_np[kind], count)
        if len(values) < count:
            raise IndexError(f"array of {count} numbers at byte {start} of {len(data)}")
        items = [values[index : index + 1] for index in range(count)]
        return 12 + values.nbytes, header + items, list(range(2, 2 + count)), types
    if kind != GGUFValueType.STRING:
        return None
    view, parts = memoryview(data), header
    for _ in range(count):
        if place + 8 > len(data):
            raise IndexError(f"array of {count} strings at byte {start} of {len(data)}")
        end = place + 8 + int.from_bytes(view[place : place + 8], "little")
        parts += (data[place : place + 8].view(np.uint64), data[place + 8 : end])
        place = end
    return place - start, parts, list(range(3, 3 + 2 * count, 2)), types
