"""Which examples each process learns from in each micro-batch, the same on every start.

The order of an epoch depends on the seed and the epoch alone. It is cut into one chunk a
micro-batch, and each chunk is divided among the processes (ranks):

```
order           e3 e0 e7 e5 | e1 e6 e2 e4 | e8
2 ranks of 2    rank 0: e3 e0   e1 e6   e8
                rank 1: e7 e5   e2 e4   (nothing: a batch without labels keeps the ranks in step)
```

So n ranks with accumulation k learn, in each optimizer step, from the same examples as one process
with accumulation n*k, and a run can be continued on another number of ranks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from torch.utils.data import Sampler

__all__ = ["CollateOrBlank", "RankBatches", "ShuffledOrder"]


class Order(Protocol):
    """Indices of all examples, in another order every epoch."""

    def __iter__(self) -> Iterator[int]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration gives."""


class ShuffledOrder(Sampler[int]):
    """All indices in random order; the same seed and epoch give the same order."""

    def __init__(self, num_examples: int, *, seed: int) -> None:
        self._num_examples = num_examples
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return self._num_examples

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of an epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        indices = list(range(self._num_examples))
        random.Random(f"{self._seed}-{self._epoch}").shuffle(indices)
        return iter(indices)


class RankBatches(Sampler[list[int]]):
    """The batches of one rank; every rank has the same number of them.

    Args:
        order: Of all examples.
        lengths: Tokens of each example, by index.
        batch_size: Most examples in a batch.
        num_ranks: How many processes share each chunk.
        rank: Which of them this is, from 0.
        balanced: Divide a chunk so that the ranks have about the same number of tokens, instead of
            in order (which keeps examples of similar length together).
    """

    def __init__(
        self,
        order: Order,
        lengths: Sequence[int],
        batch_size: int,
        *,
        num_ranks: int = 1,
        rank: int = 0,
        balanced: bool = False,
    ) -> None:
        self._order = order
        self._lengths = lengths
        self.batch_size = batch_size
        self._num_ranks = num_ranks
        self._rank = rank
        self._balanced = balanced

    def __len__(self) -> int:
        return -(-len(self._order) // (self.batch_size * self._num_ranks))

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of an epoch."""
        self._order.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        chunk: list[int] = []
        for index in self._order:
            chunk.append(index)
            if len(chunk) == self.batch_size * self._num_ranks:
                yield self._share(chunk)
                chunk = []
        if chunk:
            yield self._share(chunk)

    def _share(self, chunk: list[int]) -> list[int]:
        """This rank's part of a chunk; empty when the chunk has too few examples for all."""
        if not self._balanced:
            first = self._rank * self.batch_size
            return chunk[first : first + self.batch_size]
        shares: list[list[int]] = [[] for _ in range(self._num_ranks)]
        tokens = [0] * self._num_ranks
        # Longest first, each to the rank with the fewest tokens that has a place left.
        for index in sorted(chunk, key=lambda i: (-self._lengths[i], i)):
            open_ranks = [r for r in range(self._num_ranks) if len(shares[r]) < self.batch_size]
            rank = min(open_ranks, key=lambda r: (tokens[r], r))
            shares[rank].append(index)
            tokens[rank] += self._lengths[index]
        place = {index: number for number, index in enumerate(chunk)}
        return sorted(shares[self._rank], key=place.__getitem__)


class CollateOrBlank:
    """Collates examples; of none makes a batch without labels, which adds no loss.

    Args:
        collate: Makes a batch of examples.
        example: What the batch without labels is made of.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], dict[str, Any]], example: Any) -> None:
        self._collate = collate
        self._example = example

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        """The batch."""
        if examples:
            return self._collate(examples)
        batch = self._collate([self._example])
        batch["labels"].fill_(-100)
        return batch
