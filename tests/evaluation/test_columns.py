from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripletune.evaluation.columns import pack_columns

VALUES = st.one_of(st.integers(0, 3), st.integers(2**31 - 4, 2**31 - 1))


def pack_rows(rows):
    return pack_columns([np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)])


@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=30))
def test_pack_columns_keeps_order_and_equality_of_rows(rows):
    packed = pack_rows(rows).tolist()
    order = {row: rank for rank, row in enumerate(sorted(set(rows)))}
    ranks = {value: rank for rank, value in enumerate(sorted(set(packed)))}
    assert [ranks[value] for value in packed] == [order[row] for row in rows]


def test_pack_columns_of_no_rows_is_empty():
    empty = np.array([], dtype=np.int64)
    assert pack_columns([empty, empty]).tolist() == []


@pytest.mark.parametrize("width", [2, 5])
def test_pack_columns_is_exact_beyond_64_bits(width):
    largest = 2**31 - 1
    rows = [(largest,) * width, (largest,) * (width - 1) + (0,), (0,) * width]
    assert np.argsort(pack_rows(rows)).tolist() == [2, 1, 0]
    assert len(set(pack_rows(rows).tolist())) == 3
