"""The triplets of a whole file as integer columns, so that a million of them can be compared.

Reading a record into the frozen classes of `tripletune.schema` costs more than scoring it. Here
every subject, relation, object becomes a number in one `NameIndex`, shared by all tables that are
compared. A line that is not as expected is handed to `Example.from_record`, whose message then
says what is wrong with it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tripletune.errors import DataError
from tripletune.schema import Example, Extraction, Triplet

__all__ = ["NameIndex", "Slots", "TripletTable", "build_table", "read_table"]

Slots = tuple[tuple[str, str], ...]
"""Further object slots as (name, value) pairs."""


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
        self._confidences: dict[int, float] = {}
        self._problems: dict[int, tuple[str, ...]] = {}

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
        if max(map(len, triplets), default=0) > 3:
            self._add_annotations(triplets)
        self._finish_row(text, record.get("id"), numbers)
        if "problems" in record:
            self._add_problems(record["problems"])

    def add_example(self, example: Example | Extraction) -> None:
        """Add a validated record."""
        first = len(self._numbers) // 3
        numbers = []
        for position, triplet in enumerate(example.triplets, first):
            numbers += [self._number(item) for item in triplet.key]
            if triplet.object_slots:
                self._slots[position] = triplet.object_slots
            if triplet.confidence is not None:
                self._confidences[position] = triplet.confidence
        self._finish_row(example.text, example.id, numbers)
        if isinstance(example, Extraction) and example.problems:
            self._add_problems(list(example.problems))

    def finish(self) -> TripletTable:
        """The table of everything added."""
        columns = np.frombuffer(self._numbers, dtype=np.int32).reshape(-1, 3).astype(np.int64)
        ends = np.frombuffer(self._ends, dtype=np.int64)
        confidences = None
        if self._confidences:
            confidences = np.full(len(columns), np.nan)
            confidences[list(self._confidences)] = list(self._confidences.values())
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
        self._ends.append(len(self._numbers) // 3)
        self._texts.append(text)
        self._ids.append(None if identifier is None else str(identifier))

    def _add_annotations(self, records: list[dict[str, Any]]) -> None:
        for position, record in enumerate(records, len(self._numbers) // 3):
            if record.get("object_slots"):
                self._slots[position] = Triplet.from_record(record).object_slots
            confidence = record.get("confidence")
            if confidence is None:
                continue
            if type(confidence) not in (int, float) or not 0 <= confidence <= 1:
                raise TypeError
            self._confidences[position] = confidence

    def _add_problems(self, problems: object) -> None:
        if isinstance(problems, list) and problems:
            self._problems[len(self._texts) - 1] = tuple(str(problem) for problem in problems)


def build_table(examples: Iterable[Example | Extraction], names: NameIndex) -> TripletTable:
    """The table of some records; new names are added to `names`."""
    builder = _TableBuilder(names)
    for example in examples:
        builder.add_example(example)
    return builder.finish()


def read_table(path: str | Path, names: NameIndex) -> TripletTable:
    """The table of a file of canonical JSON lines; new names are added to `names`.

    Blank lines are passed over. `object_slots`, `confidence` and a row's `problems` are kept,
    types and spans are not.

    Raises:
        DataError: the file cannot be read or a line is no canonical record; it carries file and
            line.
    """
    builder = _TableBuilder(names)
    number = 0
    try:
        with Path(path).open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    _add_line(builder, line, path=path, number=number)
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.object[error.start]:#04x} is not UTF-8 text; save the file as UTF-8",
            path=path,
            line=number + 1,
        ) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}; check the path", path=path) from error
    return builder.finish()


def _add_line(builder: _TableBuilder, line: str, *, path: str | Path, number: int) -> None:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{line.strip()[:80]!r} is not a JSON object ({error}); need one object a line",
            path=path,
            line=number,
        ) from error
    try:
        builder.add_record(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        try:
            Example.from_record(record)
        except DataError as cause:
            raise DataError(cause.message, path=path, line=number) from cause
        raise DataError(
            f"{line.strip()[:80]!r} is not a canonical record", path=path, line=number
        ) from error
