"""How much is computed together where nothing else is said."""

from __future__ import annotations

__all__ = ["choose_batch_size", "choose_chunk_size"]

_ON_GPU, _ELSEWHERE = 128, 16
_FEWEST_BATCHES, _MOST_BATCHES, _ENOUGH_CHUNKS = 4, 32, 16
_BATCHES_ELSEWHERE = 8


def choose_batch_size(*, on_gpu: bool) -> int:
    """How many windows to compute together at most.

    A GPU takes about as long for a token of one as for one of each of a hundred, since it reads
    all weights for either; how many its memory has room for is seen when they are known.
    """
    return _ON_GPU if on_gpu else _ELSEWHERE


def choose_chunk_size(batch_size: int, num_records: int | None, *, on_gpu: bool) -> int:
    """How many records to work on together, the same for any number of workers.

    At the end of a chunk, when no more prompts wait, a GPU computes a few long answers in the time
    of a whole batch. So it is given as many batches at once as leave a job some chunks to divide
    among workers; elsewhere, and for a stream, results had better come soon.

    Args:
        batch_size: Windows computed together.
        num_records: Of the job; None where it is not known.
        on_gpu: Whether a GPU computes.
    """
    if not on_gpu:
        return batch_size * _BATCHES_ELSEWHERE
    batches = (num_records or 0) // (_ENOUGH_CHUNKS * batch_size)
    return batch_size * min(max(batches, _FEWEST_BATCHES), _MOST_BATCHES)
