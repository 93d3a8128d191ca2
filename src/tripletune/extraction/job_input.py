"""Records to extract from, out of a file or standard input, one at a time.

A record that cannot be used is given all the same, with what is wrong with it, so that it can be
reported in its place.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tripletune.errors import DataError

__all__ = ["INPUT_FORMATS", "InputFormat", "InputRecord", "count_records", "iter_records"]

InputFormat = Literal["jsonl", "txt", "csv", "tsv", "parquet"]
INPUT_FORMATS: tuple[InputFormat, ...] = ("jsonl", "txt", "csv", "tsv", "parquet")
TEXT_FIELDS = ("text", "sentence", "content", "文本", "句子", "原文")
_SUFFIXES: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_MAX_CELL = 1 << 27


@dataclass(frozen=True, slots=True)
class InputRecord:
    """One record.

    Attributes:
        text: What to extract from; "" when there is a problem.
        id: Its id, when it has one.
        problem: Why it cannot be used, with its place; "" when it can.
    """

    text: str
    id: str | None = None
    problem: str = ""


def iter_records(
    path: Path | None, *, input_format: InputFormat | None = None, text_field: str | None = None
) -> Iterator[InputRecord]:
    """The records of a file in order; memory does not grow with the file.

    JSONL holds an object (or a string) a line, blank lines are passed over; TXT a text a line;
    CSV, TSV and Parquet have a column for the text and may have one named `id`.

    Args:
        path: The file; None is standard input, as JSONL if its first line is JSON, else TXT.
        input_format: None goes by the name's ending.
        text_field: Field or column of the text; None takes the first of text, sentence, content,
            文本, 句子, 原文 that is there.

    Raises:
        DataError: the file is missing or a folder, its format is not known, or a table has no
            column for the text.
    """
    if path is None:
        return _iter_lines(sys.stdin.buffer, "standard input", input_format, text_field)
    if not path.is_file():
        raise DataError("no such file, or a folder; give a file (--input)", path=path)
    kind = input_format or _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise DataError(
            f"the ending {path.suffix!r} is none of {', '.join(_SUFFIXES)}; rename the file or "
            f"name the format (--input_format {'|'.join(INPUT_FORMATS)})",
            path=path,
        )
    if kind == "parquet":
        return _iter_parquet(path, text_field)
    if kind in ("csv", "tsv"):
        return _iter_table(path, "," if kind == "csv" else "\t", text_field)
    return _iter_file_lines(path, kind, text_field)


def count_records(path: Path | None, *, input_format: InputFormat | None = None) -> int | None:
    """How many records a file holds, where that is quickly known; for the time that is left."""
    if path is None or not path.is_file():
        return None
    kind = input_format or _SUFFIXES.get(path.suffix.lower())
    if kind == "parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.ParquetFile(path).metadata.num_rows)
    if kind not in ("jsonl", "txt"):
        return None
    num_lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            num_lines += block.count(b"\n")
            last = block
    return num_lines + (not last.endswith(b"\n"))


def _iter_file_lines(
    path: Path, input_format: InputFormat, text_field: str | None
) -> Iterator[InputRecord]:
    with path.open("rb") as file:
        yield from _iter_lines(file, str(path), input_format, text_field)


def _iter_lines(
    file: BinaryIO, name: str, input_format: InputFormat | None, text_field: str | None
) -> Iterator[InputRecord]:
    for number, raw in enumerate(file, 1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if input_format is None:
            input_format = "jsonl" if line.lstrip()[:1] in (b"{", b'"') else "txt"
        place = f"{name}:{number}"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield InputRecord("", problem=f"{place}: byte {error.start} of the line is not UTF-8")
            continue
        if input_format == "txt":
            yield InputRecord(text)
        elif text.strip():
            yield _parse_line(text, place, text_field)


def _parse_line(line: str, place: str, text_field: str | None) -> InputRecord:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputRecord("", problem=f"{place}: is not JSON: {error}")
    if isinstance(value, str):
        return InputRecord(value)
    if not isinstance(value, dict):
        return InputRecord("", problem=f"{place}: {type(value).__name__} is no object with a text")
    return _read_fields(value, place, text_field)


def _read_id(value: Any) -> str | None:
    """As it stands in JSON, or as text where it comes from elsewhere."""
    if isinstance(value, (dict, list, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return None if value is None else str(value)


def _read_fields(value: dict[str, Any], place: str, text_field: str | None) -> InputRecord:
    names = TEXT_FIELDS if text_field is None else (text_field,)
    name = next((name for name in names if name in value), None)
    identifier = _read_id(value.get("id"))
    if name is None:
        wanted = " or ".join(map(repr, names))
        return InputRecord("", identifier, f"{place}: has no field {wanted}")
    text = value[name]
    if not isinstance(text, str):
        return InputRecord("", identifier, f"{place}: {name} {text!r:.80} is not a string")
    return InputRecord(text, identifier)


def _iter_table(path: Path, delimiter: str, text_field: str | None) -> Iterator[InputRecord]:
    csv.field_size_limit(_MAX_CELL)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter)
        header = next(rows, [])
        _find_column(path, header, text_field)
        while True:
            place = f"{path}:{rows.line_num + 1}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield InputRecord("", problem=f"{place}: {error}")
                continue
            record = _read_fields(dict(zip(header, row, strict=False)), place, text_field)
            if any("\udc80" <= character <= "\udcff" for character in record.text):
                record = InputRecord("", record.id, f"{place}: the text is not UTF-8")
            yield record


def _iter_parquet(path: Path, text_field: str | None) -> Iterator[InputRecord]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            column = _find_column(path, names, text_field)
            columns = [column, *(["id"] if "id" in names and column != "id" else [])]
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield _read_fields(row, f"{path}: row {number}", column)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as Parquet: {error}", path=path) from error


def _find_column(path: Path, names: list[str], text_field: str | None) -> str:
    wanted = TEXT_FIELDS if text_field is None else (text_field,)
    for name in wanted:
        if name in names:
            return name
    raise DataError(
        f"has the columns {names!r}, none of which is {' or '.join(map(repr, wanted))}; name the "
        "one that holds the text (--text_field)",
        path=path,
    )
