"""How much is computed together where nothing else is said."""

from __future__ import annotations

__all__ = ["choose_batch_size", "choose_chunk_size"]

_ON_GPU, _ELSEWHERE = 128, 16
_FEWEST_BATCHES, _MOST_BATCHES, _ENOUGH_CHUNKS = 4, 32, 16
_BATCHES_ELSEWHERE = 8
_BYTES_OF_A_WINDOW = 512
"""About 170 Chinese characters: 320 without what a window repeats of the one before, and JSON."""


def choose_batch_size(*, on_gpu: bool) -> int:
    """How many windows to compute together at most.

    A GPU takes about as long for a token of one as for one of each of a hundred, since it reads
    all weights for either; how many its memory has room for is seen when they are known.
    """
    return _ON_GPU if on_gpu else _ELSEWHERE


def choose_chunk_size(
    batch_size: int, num_records: int | None, *, bytes_per_record: float = 0.0, on_gpu: bool
) -> int:
    """How many records to work on together, the same for any number of workers.

    At the end of a chunk, when no more prompts wait, a GPU computes a few long answers in the time
    of a whole batch. So it is given as many batches at once as leave a job some chunks to divide
    among workers; elsewhere, and for a stream, results had better come soon.

    Args:
        batch_size: Windows computed together.
        num_records: Of the job; None where it is not known.
        bytes_per_record: Mean length, by which long records are taken for several windows.
        on_gpu: Whether a GPU computes.
    """
    windows_per_record = max(1.0, bytes_per_record / _BYTES_OF_A_WINDOW)
    batches = _BATCHES_ELSEWHERE
    if on_gpu:
        batches = int((num_records or 0) * windows_per_record) // (_ENOUGH_CHUNKS * batch_size)
        batches = min(max(batches, _FEWEST_BATCHES), _MOST_BATCHES)
    return max(1, int(batch_size * batches / windows_per_record))
