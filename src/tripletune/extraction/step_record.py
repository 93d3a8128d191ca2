"""Records a step as a CUDA graph, which is replayed by one call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from tripletune.models.gpu_memory import find_uncached_bytes

__all__ = ["StepRecord", "can_record", "make_room", "record_step"]

_LEAST_ROOM = 2**30
_recording = Lock()


class StepRecord:
    """A recorded step.

    Args:
        graph: What was recorded.
        output: Where it leaves its result.
    """

    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph = graph
        self._output = output

    def replay(self) -> Tensor:
        """Runs the step again; its result, which the next run overwrites."""
        self._graph.replay()
        return self._output


def can_record(device: torch.device) -> bool:
    """Whether steps on a device can be recorded."""
    return device.type == "cuda"


def make_room(device: torch.device) -> None:
    """Has PyTorch give back what it keeps of tensors that are gone, where a GPU is nearly full.

    A record's memory comes from outside PyTorch's cache. Before the run that warms a step up, too:
    what that one leaves would otherwise lie amid what prompts took, none of which could be given
    back then.
    """
    if find_uncached_bytes(device) < _LEAST_ROOM:
        torch.cuda.empty_cache()


def record_step(step: Callable[[], Tensor], device: torch.device, pool: Any) -> StepRecord:
    """Records a step without running it.

    Other threads may use the GPU meanwhile; those that record, too, wait.

    Args:
        step: Asks the current GPU, `device`, for the work. It should have run before: what is
            chosen or compiled in a first run cannot be recorded.
        device: A GPU.
        pool: Where records that never run at the same time share memory
            (`torch.cuda.graph_pool_handle`).

    Raises:
        RuntimeError: the step does what cannot be recorded, or memory is short.
    """
    # `torch.cuda.graph` empties the cache, of pinned memory too, each time: what was in it has then
    # to be asked for again.
    make_room(device)
    graph = torch.cuda.CUDAGraph()
    with _recording, torch.cuda.stream(_find_stream(device)):
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            output = step()
        finally:
            graph.capture_end()
    return StepRecord(graph, output)


@cache
def _find_stream(device: torch.device) -> Any:
    """The stream that a GPU's records are made on.

    Always the same: for every stream that it meets cuBLAS keeps a workspace (32 MiB on an H100) as
    long as the process lives.
    """
    make_stream: Any = torch.cuda.Stream
    return make_stream(device)
