"""Lines and JSON values of a file, one pass, bounded memory, every failure with its line.

A byte order mark and CRLF line ends are accepted. JSON may come as one value a line, as one array,
or as values one after another with line breaks inside (pretty-printed).
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tripletune.data.readers.document import Document, has_lone_surrogate, load_json
from tripletune.data.readers.problem import Problems, shorten
from tripletune.errors import DataError

__all__ = [
    "Head",
    "check_file",
    "is_line_json",
    "iter_document",
    "iter_json",
    "iter_lines",
    "read_head",
]

_HEAD_BYTES = 1 << 18
_HEAD_RECORDS = 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Head:
    """The first records of a file, which is what a format is recognised by.

    Attributes:
        path: The file or folder.
        lines: The first lines that hold something.
        records: Those of them that are JSON (or the first values of a JSON document).
        magic: The first four bytes; empty for a folder.
        fault: What is wrong with the first line's encoding, or "".
    """

    path: Path
    lines: tuple[str, ...] = ()
    records: tuple[object, ...] = field(default=())
    magic: bytes = b""
    fault: str = ""


def check_file(path: Path) -> None:
    """Check that a path is a file that holds something.

    Raises:
        DataError: there is nothing there, or a folder, or an empty file.
    """
    if path.is_dir():
        raise DataError(
            "is a folder; needed is a data file. Name one of its files instead"
            + _list_names(path, limit=5),
            path=path,
        )
    if not path.exists():
        raise DataError(f"there is no such file{_suggest_name(path)}; check the path", path=path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(4096)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from error
    if size == 0 or (size <= len(first) and not first.removeprefix(_BOM).strip()):
        raise DataError("is empty; needed is at least one record", path=path)
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(
            "byte 0: UTF-16 byte order mark; needed is UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW",
            path=path,
            line=1,
        )


def iter_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """One-based number and text of each line that is not blank, without its line end.

    A line that is not UTF-8 is reported with the position of the first wrong byte.

    Raises:
        DataError: the file cannot be read.
    """
    check_file(path)
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(_BOM)
            problems.line = number
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                problems.drop_record("not_utf8", _describe_bytes(raw, error), value=repr(raw[:60]))
                continue
            line = line.rstrip("\r\n")
            if line and not line.isspace():
                yield number, line


def iter_document(path: Path, problems: Problems) -> Iterator[tuple[int, object]]:
    """Line number (where it begins) and value of each item of a JSON array or value stream.

    Raises:
        DataError: the file cannot be read, or holds something that is not JSON: what follows it
            cannot be told apart, so reading ends there even when problems are collected.
    """
    check_file(path)
    with path.open("rb") as file:
        yield from Document(file, problems).iter_values()


def iter_json(path: Path, problems: Problems) -> Iterator[tuple[int, object]]:
    """Line number (where it begins) and value of each JSON value of a file.

    Raises:
        DataError: the file cannot be read.
    """
    if is_line_json(path):
        for number, line in iter_lines(path, problems):
            value = _load_line(line, problems)
            if value is not None:
                yield number, value[0]
    else:
        yield from iter_document(path, problems)


def is_line_json(path: Path) -> bool:
    """Whether a file holds one JSON value a line, judged by its first lines.

    Raises:
        DataError: the file cannot be read.
    """
    lines = _read_head_lines(path, limit=2)
    first = lines[0].strip() if lines else ""
    if not first.startswith("{"):
        return not first.startswith("[") or _is_list_of_lists(lines)
    if _try_json(first) is not None or first.endswith("}"):
        return True
    return len(lines) > 1 and lines[1].lstrip().startswith("{")


def read_head(path: Path) -> Head:
    """The first lines and JSON values of a file; what cannot be read is left out.

    Raises:
        DataError: there is no such file, or it is empty.
    """
    if path.is_dir():
        return Head(path)
    check_file(path)
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        fault = _find_fault(file.readline(_HEAD_BYTES))
    lines = _read_head_lines(path, limit=_HEAD_RECORDS)
    ignored = Problems(path, on_problem=lambda problem: None)
    records: list[object] = []
    if is_line_json(path):
        values = (_load_line(line, ignored) for line in lines)
        records = [value[0] for value in values if value is not None]
    else:
        for _, value in iter_document(path, ignored):
            records.append(value)
            if len(records) == _HEAD_RECORDS:
                break
    return Head(path, tuple(lines), tuple(records), magic, fault)


def _read_head_lines(path: Path, *, limit: int) -> list[str]:
    check_file(path)
    lines: list[str] = []
    with path.open("rb") as file:
        read = 0
        for number, raw in enumerate(file, 1):
            read += len(raw)
            text = (raw.removeprefix(_BOM) if number == 1 else raw).decode("utf-8", "ignore")
            if text.strip():
                lines.append(text.rstrip("\r\n"))
            if len(lines) == limit or read > _HEAD_BYTES:
                break
    return lines


def _is_list_of_lists(lines: list[str]) -> bool:
    """Whether each line is a list of its own, such as a list of labels, not one long array."""
    return len(lines) > 1 and all(_try_json(line) is not None for line in lines)


def _try_json(text: str) -> tuple[object] | None:
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return None


def _load_line(line: str, problems: Problems) -> tuple[object] | None:
    try:
        value = load_json(line)
    except json.JSONDecodeError as error:
        problems.drop_record(
            "broken_json",
            f"broken JSON at character {error.colno}: {error.msg}, in {shorten(line)}; needed is "
            "one JSON object a line",
            value=line,
        )
        return None
    except (ValueError, RecursionError) as error:
        problems.drop_record(
            "broken_json",
            f"JSON that cannot be read ({error}), in {shorten(line)}; needed is one JSON object a "
            "line",
            value=line,
        )
        return None
    if has_lone_surrogate(line, value):
        problems.drop_record(
            "lone_surrogate",
            f"half a surrogate pair in {shorten(line)}; such text has no UTF-8 form. Write whole "
            "characters",
            value=line,
        )
        return None
    return (value,)


def _describe_bytes(raw: bytes, error: UnicodeDecodeError) -> str:
    hint = "Save the file as UTF-8"
    with contextlib.suppress(UnicodeDecodeError):
        shown = shorten(raw.decode("gb18030").strip(), limit=30)
        hint = f"It reads as GB18030 ({shown}): iconv -f GB18030 -t UTF-8 OLD > NEW"
    return (
        f"byte {error.start} of the line is 0x{raw[error.start]:02x}, which is not UTF-8; needed "
        f"is UTF-8. {hint}"
    )


def _find_fault(raw: bytes) -> str:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        # Less than three bytes before the end a character may only have been cut off.
        return _describe_bytes(raw, error) if error.start < _HEAD_BYTES - 3 else ""
    return ""


def _suggest_name(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (the folder {str(path.parent)!r} does not exist either)"
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.with_name(near[0]))!r}?" if near else ""


def _list_names(path: Path, *, limit: int) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return " (it is empty)"
    return ": " + ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
