"""Readers: examples from every format that users arrive with.

The format is recognised by content; `FORMATS` lists what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tripletune.data.readers.formats import Format
from tripletune.data.readers.problem import Problem, Problems
from tripletune.data.readers.registry import FORMATS, get_format, parse_rows, recognise_format
from tripletune.data.readers.source import check_file, read_head
from tripletune.schema import Example

__all__ = [
    "FORMATS",
    "Format",
    "Problem",
    "detect_format",
    "load_examples",
    "open_examples",
    "read_examples",
    "read_rows",
]


def detect_format(path: str | Path) -> Format:
    """The format of a file, by its content.

    Raises:
        DataError: the file cannot be read, or no format fits.
    """
    path = Path(path)
    if not path.is_dir():
        check_file(path)
    return recognise_format(read_head(path))


def open_examples(
    path: str | Path,
    problems: Problems,
    *,
    format: str | None = None,  # noqa: A002 - the name users know
) -> Iterator[Example]:
    """The examples of a file, reporting to `problems`, whose `line` and `tallies` follow along."""
    known = detect_format(path) if format is None else get_format(format)
    return known.read(Path(path), problems)


def read_examples(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the name users know
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Example]:
    """The examples of a file in order, read in one pass.

    Args:
        path: The file (for brat and saved data sets: the folder).
        format: The name of a format in `FORMATS`; None recognises it by content.
        on_problem: Called with each record or triplet that cannot be used or was changed, and
            reading goes on; None raises at the first that cannot be used.

    Raises:
        DataError: there is no such file, it is a folder or empty, no format fits; and, without
            `on_problem`, a record that cannot be used, with file, line, value and what is accepted.

    Example:
        >>> for example in read_examples("train.jsonl"):  # doctest: +SKIP
        ...     print(example.text, len(example.triplets))
    """
    path = Path(path)
    return open_examples(path, Problems(path, on_problem), format=format)


def load_examples(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the name users know
) -> list[Example]:
    """All examples of a file.

    Raises:
        DataError: as `read_examples` does.
    """
    return list(read_examples(path, format=format))


def read_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    on_problem: Callable[[Problem], None] | None = None,
) -> Iterator[Example]:
    """The examples of rows in memory, such as a Hugging Face `Dataset`, in one pass.

    Args:
        rows: Objects with the fields of any JSON format in `FORMATS`, recognised by content.
        on_problem: As for `read_examples`.

    Raises:
        DataError: there are no rows, no format fits them, or one cannot be used.
    """
    return parse_rows(rows, Problems(Path("rows"), on_problem))
