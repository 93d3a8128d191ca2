"""How many processors a process loads with.

`torchrun` gives each process one thread unless told otherwise. On their way to a GPU weights change
their dtype, which one thread does at less than 1 GB a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["count_processors", "use_own_processors"]


@contextmanager
def use_own_processors() -> Iterator[None]:
    """Torch uses this process's share of the machine's processors inside; then as many as before.

    Never fewer than before.
    """
    import torch

    before = torch.get_num_threads()
    share = count_processors() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(before, share))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count_processors() -> int:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not Linux
