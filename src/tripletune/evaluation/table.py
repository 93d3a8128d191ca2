"""The triplets of a whole file as integer columns, so that a million of them can be compared.

Reading a record into the frozen classes of `tripletune.schema` costs more than scoring it. Here
every subject, relation, object becomes a number in one `NameIndex`, shared by all tables that are
compared. A line that is not as expected is handed to `Example.from_record`, whose message then
says what is wrong with it.
"""

from __future__ import annotations

import codecs
import json
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tripletune.errors import DataError
from tripletune.schema import Example, Extraction, Triplet

if TYPE_CHECKING:
    import pyarrow as pa

    from tripletune.evaluation.arrow_reader import BlockColumns

__all__ = ["NameIndex", "Slots", "TripletTable", "build_table", "read_tables"]

Slots = tuple[tuple[str, str], ...]
"""Further object slots as (name, value) pairs."""

_LARGE_FILE_BYTES = 1 << 22
_BLOCK_BYTES = 1 << 24


class NameIndex(dict[str, int]):
    """Numbers names from 0 in the order in which they are looked up; a new one is added.

    Raises:
        DataError: on looking up what is no string or holds nothing but white space.

    Example:
        >>> names = NameIndex()
        >>> names["苹果公司"], names["库比蒂诺"], names["苹果公司"]
        (0, 1, 0)
    """

    def __missing__(self, name: str) -> int:
        if type(name) is not str or not name.strip():
            raise DataError(f"name: {name!r} is not a string with something in it")
        number = len(self)
        self[name] = number
        return number

    def look_up_all(self, names: Sequence[str]) -> list[int]:
        """The numbers of distinct names that are known to have something in them."""
        known = [*map(self.get, names)]
        first = len(self)
        fresh = iter(range(first, first + known.count(None)))
        numbers = [next(fresh) if number is None else number for number in known]
        self.update(
            (name, number) for name, number in zip(names, numbers, strict=True) if number >= first
        )
        return numbers


@dataclass(frozen=True, slots=True)
class TripletTable:
    """All rows of one file.

    Attributes:
        texts: The text of each row.
        ids: The id of each row, or None.
        rows: (number of triplets,) the row each triplet belongs to, ascending.
        subjects: (number of triplets,) the name number of each subject.
        relations: (number of triplets,) the name number of each relation.
        objects: (number of triplets,) the name number of each object.
        slots: Further object slots by triplet number, where there are any.
        confidences: (number of triplets,) float64, NaN where unknown; None when all are.
        problems: What could not be read in the model's output, by row.
    """

    texts: list[str]
    ids: list[str | None]
    rows: NDArray[np.int64]
    subjects: NDArray[np.int64]
    relations: NDArray[np.int64]
    objects: NDArray[np.int64]
    slots: dict[int, Slots]
    confidences: NDArray[np.float64] | None
    problems: dict[int, tuple[str, ...]]


class _TableBuilder:
    def __init__(self, names: NameIndex) -> None:
        self._number = names.__getitem__
        self._texts: list[str] = []
        self._ids: list[str | None] = []
        self._numbers = array("i")
        self._ends = array("q")
        self._slots: dict[int, Slots] = {}
        self._confidences = array("d")
        self._problems: dict[int, tuple[str, ...]] = {}
        self.unnumbered: list[tuple[slice, pa.StringArray]] = []

    @property
    def _num_triplets(self) -> int:
        return len(self._numbers) // 3

    def add_record(self, record: dict[str, Any]) -> None:
        """Add a JSON object that has the expected form.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the form is not the expected one.
        """
        text, triplets = record["text"], record["triplets"]
        if type(text) is not str or type(triplets) is not list or not text.strip():
            raise TypeError
        items: list[str] = []
        for triplet in triplets:
            items += (triplet["subject"], triplet["relation"], triplet["object"])
        numbers = [*map(self._number, items)]
        if max(map(len, triplets), default=0) > len(("subject", "relation", "object")):
            for position, triplet in enumerate(triplets, self._num_triplets):
                if triplet.get("object_slots") or triplet.get("confidence") is not None:
                    self._annotate(position, Triplet.from_record(triplet))
        self._finish_row(text, record.get("id"), numbers)
        problems = record.get("problems")
        if problems and isinstance(problems, list):
            self._problems[len(self._texts) - 1] = tuple(map(str, problems))

    def add_example(self, example: Example | Extraction) -> None:
        """Add a validated record."""
        numbers = []
        for position, triplet in enumerate(example.triplets, self._num_triplets):
            numbers += [self._number(item) for item in triplet.key]
            self._annotate(position, triplet)
        self._finish_row(example.text, example.id, numbers)
        if isinstance(example, Extraction) and example.problems:
            self._problems[len(self._texts) - 1] = example.problems

    def add_columns(self, columns: BlockColumns) -> None:
        """Add a block of rows; its names are numbered by `number_names` later."""
        first = self._num_triplets
        self._problems |= {
            len(self._texts) + row: problems for row, problems in columns.problems.items()
        }
        if columns.confidences is not None:
            self._pad_confidences(self._num_triplets)
            self._confidences.frombytes(columns.confidences.tobytes())
        self._ends.frombytes((columns.ends + self._num_triplets).tobytes())
        self._numbers.frombytes(np.column_stack(columns.items).astype(np.int32).tobytes())
        self.unnumbered.append((slice(first, self._num_triplets), columns.names))
        self._texts += columns.texts
        self._ids += columns.ids

    def number_names(self, numbers: Sequence[NDArray[np.int64]]) -> None:
        """Replace the positions in each unnumbered block by the numbers of its names."""
        columns = np.frombuffer(self._numbers, dtype=np.int32).reshape(-1, 3)
        for (rows, _), number in zip(self.unnumbered, numbers, strict=True):
            columns[rows] = number[columns[rows]]
        self.unnumbered.clear()

    def finish(self) -> TripletTable:
        """The table of everything added."""
        columns = np.frombuffer(self._numbers, dtype=np.int32).reshape(-1, 3).astype(np.int64)
        ends = np.frombuffer(self._ends, dtype=np.int64)
        confidences = None
        if self._confidences:
            self._pad_confidences(self._num_triplets)
            confidences = np.frombuffer(self._confidences, dtype=np.float64)
        return TripletTable(
            texts=self._texts,
            ids=self._ids,
            rows=np.repeat(np.arange(len(ends), dtype=np.int64), np.diff(ends, prepend=0)),
            subjects=columns[:, 0],
            relations=columns[:, 1],
            objects=columns[:, 2],
            slots=self._slots,
            confidences=confidences,
            problems=self._problems,
        )

    def _finish_row(self, text: str, identifier: object, numbers: list[int]) -> None:
        self._numbers.extend(numbers)
        self._ends.append(self._num_triplets)
        self._texts.append(text)
        self._ids.append(None if identifier is None else str(identifier))

    def _annotate(self, position: int, triplet: Triplet) -> None:
        if triplet.object_slots:
            self._slots[position] = triplet.object_slots
        if triplet.confidence is not None:
            self._pad_confidences(position)
            self._confidences.append(triplet.confidence)

    def _pad_confidences(self, length: int) -> None:
        self._confidences.extend(repeat(math.nan, length - len(self._confidences)))


def build_table(examples: Iterable[Example | Extraction], names: NameIndex) -> TripletTable:
    """The table of some records; new names are added to `names`."""
    builder = _TableBuilder(names)
    for example in examples:
        builder.add_example(example)
    return builder.finish()


def read_tables(paths: Sequence[str | Path], names: NameIndex) -> list[TripletTable]:
    """The tables of some files of canonical JSON lines; new names are added to `names`.

    Blank lines are passed over. `object_slots`, `confidence` and a row's `problems` are kept,
    types and spans are not.

    Raises:
        DataError: a file cannot be read or a line is no canonical record; it carries file and
            line.
    """
    builders = [_read_file(path, names) for path in paths]
    blocks = [block for builder in builders for _, block in builder.unnumbered]
    if blocks:
        from tripletune.evaluation.arrow_reader import unify_names

        distinct, positions = unify_names(blocks)
        numbers = np.array(names.look_up_all(distinct), dtype=np.int64)
        remaining = iter(positions)
        for builder in builders:
            builder.number_names([numbers[next(remaining)] for _ in builder.unnumbered])
    return [builder.finish() for builder in builders]


def _read_file(path: str | Path, names: NameIndex) -> _TableBuilder:
    builder = _TableBuilder(names)
    number = 1
    try:
        is_large = Path(path).stat().st_size >= _LARGE_FILE_BYTES
        with Path(path).open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                block += file.readline()
                if number == 1:
                    block = block.removeprefix(codecs.BOM_UTF8)
                if not (is_large and _add_block(builder, block)):
                    _add_lines(builder, block, path=path, first=number)
                number += block.count(b"\n")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}; check the path", path=path) from error
    return builder


def _add_block(builder: _TableBuilder, block: bytes) -> bool:
    """Add a block by columns; False when it needs to be added line by line."""
    # Arrow takes longer to import than a small file to read.
    from tripletune.evaluation.arrow_reader import read_columns

    columns = read_columns(block)
    if columns is None:
        return False
    builder.add_columns(columns)
    return True


def _add_lines(builder: _TableBuilder, block: bytes, *, path: str | Path, first: int) -> None:
    for number, line in enumerate(block.split(b"\n"), first):
        if not line or line.isspace():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"byte {line[error.start]:#04x} is not UTF-8 text; save the file as UTF-8",
                path=path,
                line=number,
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{line.decode()[:80]!r} is not a JSON object ({error}); need one object a line",
                path=path,
                line=number,
            ) from error
        try:
            builder.add_record(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _explain(record, path=path, number=number) from error


def _explain(record: object, *, path: str | Path, number: int) -> DataError:
    """What is wrong with a record that cannot be added."""
    try:
        Example.from_record(record)
    except DataError as error:
        return DataError(error.message, path=path, line=number)
    return DataError(f"{record!r:.80} is not a canonical record", path=path, line=number)
