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


@pytest.mark.parametrize(
    ("num_records", "on_gpu", "expected"),
    [(1000, False, 20), (10, True, 10), (16 * 10 * 12, True, 80), (None, True, 10)],
)
def test_long_records_count_as_several_windows(
    num_records: int | None, on_gpu: bool, expected: int
) -> None:
    # Of 4 windows each.
    size = choose_chunk_size(10, num_records, bytes_per_record=2048, on_gpu=on_gpu)
    assert size == expected


def test_chunk_holds_at_least_one_record() -> None:
    assert choose_chunk_size(1, 5, bytes_per_record=10**7, on_gpu=True) == 1
