"""Activations that wait for the backward pass in pinned host memory, copied beside the computing.

With full checkpointing a network keeps one tensor a layer and token: its blocks' inputs. Sending
those to the host while the next block runs, and fetching each while the block after it is computed
backwards, leaves the GPU with two of them instead of one for every layer.
"""

from __future__ import annotations

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ActivationStore", "find_weights", "offload_activations"]

_LEAST_BYTES = 2**22
_IN_FLIGHT = 2


@dataclass
class _Parked:
    """A tensor on the host, and its copy on the GPU once it has been asked for again."""

    host: Tensor
    device: torch.device
    fetched: Tensor | None = None


class ActivationStore:
    """Tensors saved for one backward pass (at a time), in the order of the forward pass.

    Used as the pair of hooks of `torch.autograd.graph.saved_tensors_hooks`. Tensors come back in
    about the opposite order, so that each fetch also starts the one that will be asked for next.

    Args:
        least_bytes: Smaller tensors, and parameters, stay where they are.
        weights: Addresses of memory that stays, too: what a compiled block saves for its gradients
            are also the weights that it multiplies with.
    """

    def __init__(
        self, least_bytes: int = _LEAST_BYTES, weights: frozenset[int] = frozenset()
    ) -> None:
        self._least_bytes = least_bytes
        self._weights = weights
        self._parked: list[_Parked] = []
        # Tensors being copied, with the event that ends it; they live until the next but one.
        self._leaving: deque[tuple[Tensor, Any]] = deque()
        self._free: dict[tuple[torch.dtype, int], list[Tensor]] = {}
        # One stream for both ways, so that a buffer is never filled before it has been read.
        stream: Any = torch.cuda.Stream
        self._stream: Any = stream() if torch.cuda.is_available() else None

    def start(self) -> None:
        """Forgets the pass before, whose host memory serves the next."""
        for parked in self._parked:
            key = (parked.host.dtype, parked.host.numel())
            self._free.setdefault(key, []).append(parked.host)
        self._parked = []

    def pack(self, tensor: Tensor) -> Tensor | int:
        """Starts a copy to the host; returns what `unpack` takes."""
        small = tensor.nbytes < self._least_bytes
        if self._stream is None or not tensor.is_cuda or small:
            return tensor
        if isinstance(tensor, torch.nn.Parameter) or _find_address(tensor) in self._weights:
            return tensor
        host = self._take(tensor)
        current = torch.cuda.current_stream(tensor.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            host.copy_(tensor, non_blocking=True)
        self._leaving.append((tensor, self._stream.record_event()))
        if len(self._leaving) > _IN_FLIGHT:
            _, copied = self._leaving.popleft()
            current.wait_event(copied)
        self._parked.append(_Parked(host, tensor.device))
        return len(self._parked) - 1

    def unpack(self, saved: Tensor | int) -> Tensor:
        """The tensor on the GPU, for the current stream."""
        if isinstance(saved, Tensor):
            return saved
        tensor = self._fetch(saved)
        self._parked[saved].fetched = None
        torch.cuda.current_stream(tensor.device).wait_stream(self._stream)
        self._leaving.clear()  # the stream has been waited for, so all have left
        if saved > 0:
            self._parked[saved - 1].fetched = self._fetch(saved - 1)
        return tensor

    def _fetch(self, number: int) -> Tensor:
        """On its way back; what is computed meanwhile must wait for the stream before using it."""
        parked = self._parked[number]
        if parked.fetched is not None:
            return parked.fetched
        # The memory belongs to the computing stream, which may still be using it.
        tensor = torch.empty(parked.host.shape, dtype=parked.host.dtype, device=parked.device)
        self._stream.wait_stream(torch.cuda.current_stream(parked.device))
        with torch.cuda.stream(self._stream):
            tensor.copy_(parked.host, non_blocking=True)
        return tensor

    def _take(self, tensor: Tensor) -> Tensor:
        buffers = self._free.get((tensor.dtype, tensor.numel()))
        if buffers:
            return buffers.pop().view(tensor.shape)
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


def offload_activations(base: Any) -> None:
    """Makes a network park what its forward pass saves; meant beside gradient checkpointing."""
    store = ActivationStore(weights=find_weights(base))
    plain = base.forward

    @functools.wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(*args, **kwargs)
        store.start()
        with torch.autograd.graph.saved_tensors_hooks(store.pack, store.unpack):
            return plain(*args, **kwargs)

    base.forward = forward


def find_weights(base: Any) -> frozenset[int]:
    """Where parameters lie, and the dequantised weights that fast layers keep."""
    kept = (vars(module).get("kept_weight") for module in base.modules())
    tensors = [*base.parameters(), *(weight for weight in kept if weight is not None)]
    return frozenset(map(_find_address, tensors))


def _find_address(tensor: Any) -> int:
    """Where the memory begins that a tensor, or this process's share of it, is a part of."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(local.untyped_storage().data_ptr())
