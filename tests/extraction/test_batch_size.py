from __future__ import annotations

import pytest

from tripletune.extraction.batch_size import choose_batch_size, choose_chunk_size


def test_a_gpu_computes_more_together() -> None:
    assert choose_batch_size(on_gpu=True) == 128
    assert choose_batch_size(on_gpu=False) == 16


@pytest.mark.parametrize(
    ("num_records", "on_gpu", "batches"),
    [
        (100, True, 4),
        (16 * 10 * 12, True, 12),
        (10**6, True, 32),
        (10**6, False, 8),
        (None, True, 4),
    ],
)
def test_chunks_on_a_gpu_are_large_where_there_are_many_records(
    num_records: int | None, on_gpu: bool, batches: int
) -> None:
    assert choose_chunk_size(10, num_records, on_gpu=on_gpu) == 10 * batches
