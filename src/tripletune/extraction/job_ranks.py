"""The processes that `torchrun` started for one job: the first one writes, all of them work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from tripletune.errors import TripletuneError

__all__ = ["JobRanks", "joined_ranks"]

Value = TypeVar("Value")

_PATIENCE = timedelta(hours=6)
"""How long one process waits for the others: for a chunk of long documents on a slow CPU."""
_FAREWELL = timedelta(minutes=5)


class JobRanks:
    """What the processes of a job tell one another; with one process, nothing.

    Args:
        group: A process group of torch that can carry objects (gloo). None: there is one process.

    Attributes:
        rank: This process's number, from 0; that one reads and writes the output.
        size: How many there are.
    """

    def __init__(self, group: Any = None) -> None:
        import torch.distributed as dist

        self._group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def agree(self, find: Callable[[], Value]) -> Value:
        """What `find` gives the first process, on all of them.

        Raises:
            TripletuneError: `find` raised it, on the first process; on all of them.
        """
        if self._group is None:
            return find()
        import torch.distributed as dist

        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told[0] = find()
            except TripletuneError as error:
                told[1] = error
        dist.broadcast_object_list(told, group_src=0, group=self._group)
        value: Value = told[0]
        if told[1] is not None:
            self.part()
            raise told[1]
        return value

    def gather(self, value: Value) -> list[Value]:
        """Every process's value in the order of the processes, on the first; elsewhere nothing."""
        if self._group is None:
            return [value]
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(value, values, group_dst=0, group=self._group)
        return values or []

    def part(self) -> None:
        """Waits for all before the last of them leave: who is gone cannot be listened to."""
        if self._group is not None:
            import torch.distributed as dist

            dist.monitored_barrier(self._group, timeout=_FAREWELL)


@contextmanager
def joined_ranks() -> Iterator[JobRanks]:
    """The processes of this job; those that `torchrun` started are connected inside."""
    import torch.distributed as dist

    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes == 1 or not dist.is_available():
        yield JobRanks()
        return
    was_joined = dist.is_initialized()
    if not was_joined:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    group = dist.new_group(backend="gloo", timeout=_PATIENCE) if was_joined else dist.group.WORLD
    ranks = JobRanks(group)
    try:
        yield ranks
        ranks.part()
    finally:
        if not was_joined:
            dist.destroy_process_group()
