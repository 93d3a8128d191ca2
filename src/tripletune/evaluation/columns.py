"""Rows of small integers as single integers, so that one sort finds equal rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoolArray", "FloatArray", "IntArray", "pack_columns"]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_LARGEST_PACKED = 2**62


def pack_columns(columns: Sequence[IntArray]) -> IntArray:
    """One number for each row, equal for equal rows and ordered by the first column first.

    Columns are packed into 62 bits; when they do not fit, what is packed so far is replaced by its
    rank, so that no two different rows ever get the same number.

    Args:
        columns: At least one, all of the same length, with values from 0 to 2**31 - 1.

    Example:
        >>> import numpy as np
        >>> pack_columns([np.array([0, 1, 1]), np.array([2, 0, 2])])
        array([2, 3, 5])
    """
    packed, size = columns[0], _width(columns[0])
    for column in columns[1:]:
        width = _width(column)
        if size > _LARGEST_PACKED // width:
            packed = np.unique(packed, return_inverse=True)[1].astype(np.int64)
            size = _width(packed)
        packed = packed * width + column
        size *= width
    return packed


def _width(column: IntArray) -> int:
    return int(column.max(initial=0)) + 1
