"""How many tokens the micro-batches of a run will hold, from its data and its order alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tripletune.config import TrainingSettings
from tripletune.data.cache import EncodedFile
from tripletune.data.encode import TokenizedExample
from tripletune.training.batch_order import RankBatches, ShuffledOrder
from tripletune.training.memory import Row

__all__ = ["DataLengths", "RowPlan", "find_evaluation_rows", "find_training_rows"]

_ROW_MULTIPLE = 128
_LARGEST = 16


@dataclass(frozen=True)
class DataLengths:
    """Lengths of examples, in tokens.

    Attributes:
        tokens: (N,) of prompt and answer together.
        labelled: (N,) of the answer.
    """

    tokens: NDArray[np.int64]
    labelled: NDArray[np.int64]

    @classmethod
    def of(cls, examples: Sequence[TokenizedExample]) -> DataLengths:
        """The lengths of encoded examples."""
        if isinstance(examples, EncodedFile):
            tokens, prompts = np.array(examples.lengths), np.array(examples.prompt_lengths)
        else:
            tokens = np.array([len(example) for example in examples])
            prompts = np.array([example.num_prompt_tokens for example in examples])
        return cls(tokens.astype(np.int64), (tokens - prompts).astype(np.int64))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class RowPlan:
    """The micro-batches of a run on one GPU.

    Attributes:
        largest: Those that may need the most memory, and the examples in each.
        count: How many there are.
        tokens: Real tokens in all of them.
        computed_tokens: Padding included.
    """

    largest: dict[Row, tuple[int, ...]]
    count: int
    tokens: int
    computed_tokens: int


def find_training_rows(
    lengths: DataLengths,
    settings: TrainingSettings,
    *,
    batch_size: int,
    packing: bool,
    num_ranks: int = 1,
) -> RowPlan:
    """The micro-batches as the run will meet them, in every epoch's own order.

    Args:
        lengths: Of the training examples.
        settings: For the seed, the epochs and the steps; its effective batch stays.
        batch_size: Examples in a micro-batch.
        packing: Whether a micro-batch is one row without padding.
        num_ranks: How many GPUs share the batches. The first one's are taken.
    """
    accumulation = max(1, settings.effective_batch_size // batch_size)
    per_epoch = math.ceil(len(lengths) / (batch_size * num_ranks))
    count = math.ceil(per_epoch * settings.num_epochs)
    if settings.max_steps > 0:
        count = settings.max_steps * accumulation
    batches: list[NDArray[np.int64]] = []
    for epoch in _iter_epochs(lengths, settings, batch_size, packing, num_ranks):
        batches += epoch[: count - len(batches)]
        if len(batches) == count or not epoch:
            break
    return _summarise(batches, lengths, packing)


def find_evaluation_rows(lengths: DataLengths, *, batch_size: int, packing: bool) -> RowPlan:
    """The batches of one evaluation, which takes the examples in order."""
    indices = np.arange(len(lengths))
    batches = [indices[first : first + batch_size] for first in range(0, len(lengths), batch_size)]
    return _summarise(batches, lengths, packing)


def _iter_epochs(
    lengths: DataLengths,
    settings: TrainingSettings,
    batch_size: int,
    packing: bool,
    num_ranks: int,
) -> Iterator[list[NDArray[np.int64]]]:
    """The batches of each epoch, as indices, epoch after epoch without end."""
    from tripletune.training.trainer import LengthGroupedSampler

    each = lengths.tokens.tolist()
    per_step = settings.effective_batch_size * num_ranks
    order: Any = (
        ShuffledOrder(len(each), seed=settings.seed)
        if packing
        else LengthGroupedSampler(each, per_step, seed=settings.seed)
    )
    batches = RankBatches(order, each, batch_size, num_ranks=num_ranks, balanced=packing)
    for epoch in itertools.count():
        batches.set_epoch(epoch)
        if num_ranks == 1:  # the same, in one step
            indices = np.fromiter(order, dtype=np.int64, count=len(each))
            yield [indices[s : s + batch_size] for s in range(0, len(each), batch_size)]
        else:
            yield [np.array(batch, dtype=np.int64) for batch in batches if batch]


def _summarise(
    batches: Sequence[NDArray[np.int64]], lengths: DataLengths, packing: bool
) -> RowPlan:
    indices = np.concatenate(batches)
    sizes = np.array([len(batch) for batch in batches])
    starts = np.cumsum(sizes) - sizes
    real = np.add.reduceat(lengths.tokens[indices], starts)
    labelled = np.add.reduceat(lengths.labelled[indices], starts)
    if packing:
        computed = -(-real // _ROW_MULTIPLE) * _ROW_MULTIPLE
    else:
        computed = sizes * np.maximum.reduceat(lengths.tokens[indices], starts)
    extremes = [*np.argsort(-computed)[:_LARGEST], *np.argsort(-labelled)[:_LARGEST]]
    largest = {
        Row(int(computed[place]), int(labelled[place])): tuple(batches[place].tolist())
        for place in extremes
    }
    return RowPlan(largest, len(batches), int(real.sum()), int(computed.sum()))
