"""Writers: canonical lines, Parquet, instruction and chat files.

A file appears under its name only when it is complete: it is written beside it and then renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from tripletune.data.linearize import render_target
from tripletune.data.prompts import render_query
from tripletune.errors import ConfigError, MissingPackageError, OutputError
from tripletune.schema import Example, Span, Triplet

__all__ = [
    "OUTPUT_FORMATS",
    "OutputFormat",
    "choose_output_format",
    "open_output",
    "write_examples",
]

OutputFormat = Literal["canonical", "parquet", "instruction", "messages", "sharegpt"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
"""What `write_examples` writes."""

_BATCH_ROWS = 8192
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})


def write_examples(
    examples: Iterable[Example],
    path: str | Path,
    *,
    output_format: OutputFormat | None = None,
    instruction: str | None = None,
) -> int:
    """Write examples in one pass and return how many there were.

    Args:
        examples: Read once; what they raise leaves no file behind.
        path: The file; its folder is made where it is missing.
        output_format: None writes Parquet for `.parquet` and canonical lines otherwise.
        instruction: The question of instruction and chat records; None is the training prompt.

    Raises:
        OutputError: the file cannot be written.
        ConfigError: the format is unknown.
    """
    path = Path(path)
    chosen = choose_output_format(path, output_format)
    if chosen == "parquet":
        return _write_parquet(examples, path)
    render = _choose_renderer(chosen, instruction)
    count = 0
    with open_output(path) as file:
        for example in examples:
            file.write(render(example) + "\n")
            count += 1
    return count


def choose_output_format(path: Path, output_format: str | None) -> OutputFormat:
    """The format to write, from what was asked for or from the name of the file.

    Raises:
        ConfigError: the format is unknown.
    """
    if output_format is None:
        return "parquet" if path.suffix.lower() in _PARQUET_SUFFIXES else "canonical"
    for known in OUTPUT_FORMATS:
        if known == output_format:
            return known
    raise ConfigError(
        f"output format: {output_format!r} is unknown; accepted are {', '.join(OUTPUT_FORMATS)}"
    )


@contextmanager
def open_output(path: Path) -> Iterator[Any]:
    """A text file that takes its name when the block ends, and is gone when the block raises.

    Raises:
        OutputError: the file cannot be written.
    """
    with _replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _choose_renderer(chosen: OutputFormat, instruction: str | None) -> Callable[[Example], str]:
    if chosen == "canonical":
        return lambda example: _dump(example.to_record())
    question = render_query("").rstrip("\n") if instruction is None else instruction
    if chosen == "instruction":
        return lambda example: _dump(
            {
                "instruction": question,
                "input": example.text,
                "output": render_target(example.triplets),
            }
        )
    field, speaker, content, asks, answers = {
        "messages": ("messages", "role", "content", "user", "assistant"),
        "sharegpt": ("conversations", "from", "value", "human", "gpt"),
    }[chosen]

    def render(example: Example) -> str:
        turns = [(asks, f"{question}\n{example.text}"), (answers, render_target(example.triplets))]
        record: dict[str, Any] = {} if example.id is None else {"id": example.id}
        record[field] = [{speaker: role, content: text} for role, text in turns]
        return _dump(record)

    return render


def _dump(record: dict[str, Any]) -> str:
    return _ENCODER.encode(record)


def _write_parquet(examples: Iterable[Example], path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError("writing Parquet needs pyarrow: pip install pyarrow") from error
    schema = _build_arrow_schema(pyarrow)
    iterator, count = iter(examples), 0
    with _replacing(path) as part, pyarrow.parquet.ParquetWriter(part, schema) as writer:
        while batch := list(islice(iterator, _BATCH_ROWS)):
            rows = [_build_row(example) for example in batch]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            count += len(batch)
    return count


def _build_arrow_schema(pyarrow: Any) -> Any:
    text = pyarrow.string()
    span = pyarrow.list_(pyarrow.int64())
    slot = pyarrow.struct([("name", text), ("value", text)])
    triplet = pyarrow.struct(
        [
            *((name, text) for name in ("subject", "relation", "object")),
            *((name, text) for name in ("subject_type", "object_type")),
            ("object_slots", pyarrow.list_(slot)),
            ("subject_span", span),
            ("object_span", span),
            ("confidence", pyarrow.float64()),
        ]
    )
    return pyarrow.schema([("id", text), ("text", text), ("triplets", pyarrow.list_(triplet))])


def _build_row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "text": example.text,
        "triplets": [_build_triplet_row(triplet) for triplet in example.triplets],
    }


def _build_triplet_row(triplet: Triplet) -> dict[str, Any]:
    return {
        "subject": triplet.subject,
        "relation": triplet.relation,
        "object": triplet.object,
        "subject_type": triplet.subject_type or None,
        "object_type": triplet.object_type or None,
        "object_slots": [{"name": name, "value": value} for name, value in triplet.object_slots]
        or None,
        "subject_span": _build_span(triplet.subject_span),
        "object_span": _build_span(triplet.object_span),
        "confidence": triplet.confidence,
    }


def _build_span(span: Span | None) -> list[int] | None:
    return None if span is None else [span.start, span.end]
