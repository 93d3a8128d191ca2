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
    from gguf.gguf_reader import GGUFReader

    class PlainReader(GGUFReader):
        """Takes its many small pieces from a plain array: slices of a `memmap` cost twice that."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = np.asarray(mapped)

    return PlainReader(path)
