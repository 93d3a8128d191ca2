"""A JSON document larger than memory: the items of an array, or values one after another."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from tripletune.data.readers.problem import Problems, shorten

__all__ = ["Document", "RepeatedKeyError", "has_lone_surrogate", "load_json"]

_BLANK = re.compile(r"[ \t\r\n]*")
_BLANK_OR_COMMA = re.compile(r"[ \t\r\n,]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_FIRST_CHUNK_BYTES = 1 << 16


class RepeatedKeyError(ValueError):
    """An object names one key twice; Python would keep the last value and lose the others."""


def load_json(source: str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: it is no JSON, or an object in it names a key twice (`RepeatedKeyError`).
        RecursionError: it is nested too deeply.
    """
    return _STRICT.decode(source)


def has_lone_surrogate(source: str, value: object) -> bool:
    """Whether a JSON value, read from `source`, holds half a surrogate pair (no UTF-8 form)."""
    if _SURROGATE.search(source) is None:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) < len(pairs):
        raise RepeatedKeyError(_describe_repeated(pairs))
    return built


def _describe_repeated(pairs: list[tuple[str, Any]]) -> str:
    key = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
    return f"key {key!r} stands twice in one object"


_STRICT = json.JSONDecoder(object_pairs_hook=_build_object)


class Document:
    """Reads the values of a JSON document in pieces, keeping one value in memory.

    Args:
        file: Opened for bytes, at its beginning.
        problems: Told about what cannot be read; its `line` follows the values.
    """

    def __init__(self, file: BinaryIO, problems: Problems):
        self._file = file
        self._problems = problems
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder(object_pairs_hook=self._build_object)
        self._repeated = ""
        self._buffer = ""
        self._line = 1
        self._at_end = False

    def iter_values(self) -> Iterator[tuple[int, object]]:
        """Line number, where it begins, and value of each item."""
        self._skip(_BLANK)
        in_array = self._buffer.startswith("[")
        if in_array:
            self._consume(1)
        while True:
            self._skip(_BLANK_OR_COMMA if in_array else _BLANK)
            if not self._buffer or (in_array and self._buffer[0] == "]"):
                break
            line = self._problems.line = self._line
            taken = self._take()
            if taken is None:
                return
            source, value = taken
            if self._repeated:
                self._problems.drop_record(
                    "broken_json", f"{self._repeated}; needed is each key once", value=source
                )
                continue
            if has_lone_surrogate(source, value):
                self._problems.drop_record(
                    "lone_surrogate",
                    f"half a surrogate pair in {shorten(source)}; such text has no UTF-8 form. "
                    "Write whole characters",
                    value=source,
                )
                continue
            yield line, value
        self._finish(in_array)

    def _finish(self, in_array: bool) -> None:
        self._problems.line = self._line
        if in_array and not self._buffer and not self._problems.stopped:
            self._problems.drop_record("broken_json", "the array is not closed; needed is a ] here")
        elif in_array and self._buffer:
            self._consume(1)
            self._skip(_BLANK)
            if self._buffer:
                self._problems.line = self._line
                self._problems.drop_record(
                    "broken_json",
                    f"text after the end of the array: {shorten(self._buffer[:60])}; it is not "
                    "read. Remove it",
                    value=self._buffer[:200],
                )

    def _take(self) -> tuple[str, object] | None:
        """The source and value at the front of the buffer, or None when reading must end."""
        while True:
            self._repeated = ""
            try:
                value, end = self._json.raw_decode(self._buffer)
            except (ValueError, RecursionError) as error:
                if self._fill(len(self._buffer)):
                    continue
                self._report_broken(error)
                return None
            if end == len(self._buffer) and self._fill(_FIRST_CHUNK_BYTES):
                continue
            source = self._buffer[:end]
            self._consume(end)
            return source, value

    def _build_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            # Not raised: the value has an end, so the next one can still be found.
            self._repeated = _describe_repeated(pairs)
        return built

    def _report_broken(self, error: Exception) -> None:
        if self._problems.stopped:
            return
        detail, column = str(error), 0
        if isinstance(error, json.JSONDecodeError):
            self._problems.line = self._line + self._buffer.count("\n", 0, error.pos)
            detail, column = error.msg, error.pos
        place = self._buffer[max(0, column - 20) : column + 40]
        self._problems.drop_record(
            "broken_json",
            f"broken JSON: {detail}, near {shorten(place)}; needed are JSON objects. What follows "
            "in this file is not read",
            value=place,
        )

    def _skip(self, blank: re.Pattern[str]) -> None:
        while True:
            match = blank.match(self._buffer)
            self._consume(match.end() if match else 0)
            if self._buffer or not self._fill(_FIRST_CHUNK_BYTES):
                return

    def _consume(self, count: int) -> None:
        self._line += self._buffer.count("\n", 0, count)
        self._buffer = self._buffer[count:]

    def _fill(self, num_bytes: int) -> bool:
        """Read on; False at the end of the file or where it stops being UTF-8."""
        if self._at_end:
            return False
        raw = self._file.read(max(num_bytes, _FIRST_CHUNK_BYTES))
        self._at_end = not raw
        try:
            self._buffer += self._decode.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            self._buffer += error.object[: error.start].decode("utf-8")
            self._report_bytes(error)
            return True
        return not self._at_end

    def _report_bytes(self, error: UnicodeDecodeError) -> None:
        self._at_end = self._problems.stopped = True
        self._problems.line = self._line + self._buffer.count("\n")
        self._problems.drop_record(
            "not_utf8",
            f"byte 0x{error.object[error.start]:02x} after {shorten(self._buffer[-20:])} is not "
            "UTF-8; needed is UTF-8. What follows in this file is not read. Save the file as UTF-8",
            value=self._buffer[-100:],
        )
