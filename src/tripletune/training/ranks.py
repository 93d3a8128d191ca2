"""Work divided among the processes of a distributed run, with the same result for any number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["map_over_ranks"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_over_ranks(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]
) -> list[Result]:
    """`function(items)`, each process doing every n-th item; all processes get all results.

    Args:
        function: Gives one result an item, in order; called once, possibly with no items.
        items: The same on all processes.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return list(function(items))
    size = dist.get_world_size()
    mine = list(function(items[dist.get_rank() :: size]))
    shares: list[Any] = [None] * size
    dist.all_gather_object(shares, mine)
    return [shares[number % size][number // size] for number in range(len(items))]
