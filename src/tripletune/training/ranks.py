"""Work divided among the processes of a distributed run, with the same result for any number."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = [
    "gather_over_ranks",
    "is_main_process",
    "join_ranks",
    "leave_ranks_at_exit",
    "map_over_ranks",
]

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_main_process() -> bool:
    """Whether this is the only process of a run, or the first of those `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def join_ranks() -> None:
    """Connects the processes that `torchrun` started; nothing without it."""
    if "RANK" not in os.environ:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    leave_ranks_at_exit()


@functools.cache
def leave_ranks_at_exit() -> None:
    """Has this process part from the others in order when it ends; nothing while it is alone.

    Else the threads that carry messages are torn down as they run, which aborts the process now and
    then, after all its work was done.
    """
    atexit.register(_leave_ranks)


def _leave_ranks() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gather_over_ranks(value: Item) -> list[Item]:
    """Every process's value in the order of the processes; all processes get all of them."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


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
    shares = gather_over_ranks(list(function(items[dist.get_rank() :: size])))
    return [shares[number % size][number // size] for number in range(len(items))]
