"""Blocks of canonical lines, read column by column with Arrow.

About four times as fast as reading line by line, and only for lines that are exactly as expected:
whatever is unusual (another type, a blank name or line, further object slots, a damaged line) makes
`read_columns` return None, and `tripletune.evaluation.table.read_tables` then reads the block line
by line, with the same result or a message that names the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
from numpy.typing import NDArray

from tripletune.evaluation.columns import FloatArray, IntArray

__all__ = ["BlockColumns", "read_columns", "unify_names"]

# Arrow reads chunks on several threads; a line must fit into one.
_CHUNK_BYTES = 1 << 22
_Number = TypeVar("_Number", np.int32, np.float64, np.uint8)
_ITEMS = ("subject", "relation", "object")


@dataclass(frozen=True, slots=True)
class BlockColumns:
    """What a block holds, its names numbered on their own.

    Attributes:
        texts: The text of each row.
        ids: The id of each row, or None.
        ends: (number of rows,) the number of triplets up to and with each row.
        names: The distinct subjects, relations and objects, an Arrow array.
        items: Three columns (number of triplets,): subjects, relations, objects as positions in
            `names`.
        confidences: (number of triplets,) NaN where unknown; None when all are.
        problems: What could not be read in the model's output, by row.
    """

    texts: list[str]
    ids: list[str | None]
    ends: IntArray
    names: pa.StringArray
    items: tuple[IntArray, IntArray, IntArray]
    confidences: FloatArray | None
    problems: dict[int, tuple[str, ...]]


def read_columns(block: bytes) -> BlockColumns | None:
    """The columns of some whole lines, or None when they need to be read one by one.

    Args:
        block: UTF-8 text, its last line with or without a line feed.
    """
    table = _read_arrow(block)
    num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if table is None or table.num_rows != num_lines:
        return None
    columns = _convert_table(table)
    del table
    pa.default_memory_pool().release_unused()
    return columns


def unify_names(blocks: Sequence[pa.StringArray]) -> tuple[list[str], list[IntArray]]:
    """The distinct names of several blocks, and for each block the positions of its names there."""
    encoded = pa.chunked_array(blocks, type=pa.string()).dictionary_encode().combine_chunks()
    positions = _to_numpy(encoded.indices, np.int32).astype(np.int64)
    names: list[str] = encoded.dictionary.to_pylist()
    del encoded
    pa.default_memory_pool().release_unused()
    ends = np.cumsum([len(block) for block in blocks])
    return names, np.split(positions, ends[:-1])


def _convert_table(table: pa.Table) -> BlockColumns | None:
    triplets = table["triplets"]
    if table["text"].null_count or triplets.null_count:
        return None
    rows = pc.list_flatten(triplets)
    chunks = [chunk for name in _ITEMS for chunk in pc.struct_field(rows, name).chunks]
    if any(chunk.null_count for chunk in chunks):
        return None
    encoded = pa.chunked_array(chunks, type=pa.string()).dictionary_encode().combine_chunks()
    names = encoded.dictionary
    if len(names) and (
        pc.min(pc.binary_length(names)).as_py() == 0 or pc.any(pc.utf8_is_space(names)).as_py()
    ):
        return None
    texts: list[str] = table["text"].to_pylist()
    confidences = _read_confidences(pc.struct_field(rows, "confidence"))
    if not (all(map(str.strip, texts)) and _is_share(confidences)):
        return None
    numbers = _to_numpy(encoded.indices, np.int32).astype(np.int64).reshape(3, -1)
    lengths = pc.list_value_length(triplets).combine_chunks()
    return BlockColumns(
        texts=texts,
        ids=[None if value is None else str(value) for value in table["id"].to_pylist()],
        ends=np.cumsum(_to_numpy(lengths, np.int32), dtype=np.int64),
        names=names,
        items=(numbers[0], numbers[1], numbers[2]),
        confidences=confidences,
        problems=_read_problems(table["problems"]),
    )


def _read_arrow(block: bytes) -> pa.Table | None:
    for id_type in (pa.string(), pa.int64()):
        try:
            table = pa_json.read_json(
                pa.BufferReader(block),
                read_options=pa_json.ReadOptions(block_size=_CHUNK_BYTES),
                parse_options=pa_json.ParseOptions(
                    explicit_schema=_make_schema(id_type), unexpected_field_behavior="ignore"
                ),
            )
            # Checks among other things that texts and names are UTF-8.
            table.validate(full=True)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
        return table
    return None


def _make_schema(id_type: pa.DataType) -> pa.Schema:
    triplet = pa.struct(
        [
            *((name, pa.string()) for name in _ITEMS),
            ("confidence", pa.float64()),
            # A value of another type than null is an error, which hands the file back.
            ("object_slots", pa.null()),
        ]
    )
    return pa.schema(
        [
            ("id", id_type),
            ("text", pa.string()),
            ("triplets", pa.list_(triplet)),
            ("problems", pa.list_(pa.string())),
        ]
    )


def _read_confidences(column: pa.ChunkedArray) -> FloatArray | None:
    if column.null_count == len(column):
        return None
    values: FloatArray = _to_numpy(column.combine_chunks(), np.float64).copy()
    is_known = _to_numpy(pc.is_valid(column).cast(pa.uint8()).combine_chunks(), np.uint8)
    values[is_known == 0] = np.nan
    return values


def _to_numpy(column: pa.Array, dtype: type[_Number]) -> NDArray[_Number]:
    """The values of a column of this type, undefined where it is null.

    `to_numpy` of Arrow does the same, and imports pandas first, which takes longer.
    """
    values = np.frombuffer(column.buffers()[1] or b"", dtype=dtype)
    return values[column.offset : column.offset + len(column)]


def _is_share(values: FloatArray | None) -> bool:
    """Whether all known values lie between 0 and 1."""
    return values is None or bool(np.all((values >= 0) & (values <= 1) | np.isnan(values)))


def _read_problems(column: pa.ChunkedArray) -> dict[int, tuple[str, ...]]:
    if column.null_count == len(column):
        return {}
    return {
        row: tuple(str(problem) for problem in problems)
        for row, problems in enumerate(column.to_pylist())
        if problems
    }
