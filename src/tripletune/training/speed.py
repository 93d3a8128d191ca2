"""How long a run will take, from what a GPU multiplies and reads a second; an estimate.

A micro-batch multiplies every frozen weight with every token twice (forward, and for the gradient
of the input). Where a block is computed again it multiplies a third time all that gradients need:
not the last weight of an MLP that no norm follows. For each of these passes the weights are
dequantised and read, and a few thousand kernels are started, whatever the number of tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tripletune.training.memory import Policy
from tripletune.training.network_size import NetworkSize

__all__ = [
    "DeviceSpeed",
    "estimate_generation_seconds",
    "estimate_training_seconds",
    "find_typical_device",
    "measure_device",
]

_SHARES = {(False, False): 0.68, (False, True): 0.74, (True, False): 0.51, (True, True): 1.09}
"""Of the matrix rate in half precision that a whole step reaches, by whether it is in 8 bits and
whether it is compiled: ChatGLM-6B on an H100, packed rows of 8,192 tokens."""
_WEIGHT_TRAFFIC = 4.5
"""Bytes a parameter and pass: 0.5 read, 2 written, 2 read by the product."""
_STARTS_EAGER, _STARTS_OF_ADAPTED = 3e-3, 0.3e-3
"""Seconds a block and pass that go into starting kernels, and more for each adapted layer in it:
Gemma 3 270M, whose steps of 1,700 tokens took 204 ms beside an H100, whatever its speed. Compiled,
half of that."""
_STARTS_OF_GENERATION = 4e-4
"""Seconds a block and token, most of whose steps are replayed from a record."""
_SIDE = 4096
_NORMS_BEFORE = 2
"""In a block whose attention and MLP begin with a norm; others have more."""


@dataclass(frozen=True, slots=True)
class DeviceSpeed:
    """What a GPU does a second.

    Attributes:
        name: Of the card, or of a typical one.
        flops: Of large products in half precision.
        bandwidth: Bytes read or written.
        measured: Whether on this machine.
    """

    name: str
    flops: float
    bandwidth: float
    measured: bool


# Dense half-precision products summed in fp32, and memory bandwidth, as NVIDIA gives them; about
# four fifths of the first are reached.
_TYPICAL = (
    (8.5, DeviceSpeed("RTX 3070", 0.8 * 40.6e12, 448e9, False)),
    (12.5, DeviceSpeed("RTX 3060 12GB", 0.8 * 25.6e12, 360e9, False)),
    (16.5, DeviceSpeed("RTX 4060 Ti 16GB", 0.8 * 44e12, 288e9, False)),
    (25.0, DeviceSpeed("RTX 3090", 0.8 * 71e12, 936e9, False)),
    (50.0, DeviceSpeed("RTX A6000", 0.8 * 154.8e12, 768e9, False)),
    (81.0, DeviceSpeed("A100 80GB", 0.8 * 312e12, 2039e9, False)),
    (float("inf"), DeviceSpeed("H200", 0.8 * 989e12, 4800e9, False)),
)


def find_typical_device(memory_gib: float) -> DeviceSpeed:
    """A common card with about this much memory."""
    return next(device for most, device in _TYPICAL if memory_gib <= most)


def measure_device(device: Any) -> DeviceSpeed:
    """What the GPU at hand does, in about a fifth of a second; no random numbers are drawn."""
    import torch

    flops, bandwidth = _measure_products(device), _measure_writing(device)
    torch.cuda.empty_cache()
    return DeviceSpeed(torch.cuda.get_device_name(device), flops, bandwidth, True)


def _measure_products(device: Any) -> float:
    import torch

    matrix = torch.ones(_SIDE, _SIDE, device=device, dtype=torch.float16)
    product = torch.empty_like(matrix)
    return 2 * _SIDE**3 / _time(lambda: torch.mm(matrix, matrix, out=product), device)


def _measure_writing(device: Any) -> float:
    import torch

    wide = torch.empty(8 * _SIDE, _SIDE, device=device, dtype=torch.float16)
    return wide.nbytes / _time(wide.zero_, device)


def _time(action: Callable[[], Any], device: Any, count: int = 20) -> float:
    """Seconds of one of many."""
    import torch

    for _ in range(3):
        action()
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(count):
        action()
    torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / count


def estimate_training_seconds(
    size: NetworkSize,
    policy: Policy,
    device: DeviceSpeed,
    *,
    tokens: int,
    micro_batches: int,
    in_fp8: bool = False,
) -> float:
    """Seconds of training steps.

    Args:
        size: Of the network.
        policy: How activations are kept.
        device: What computes.
        tokens: In all micro-batches, padding included.
        micro_batches: How many.
        in_fp8: Whether frozen weights are multiplied in 8 bits.
    """
    passes = 2 + _share_needed_again(size) * policy.checkpointed / size.layers
    share = _SHARES[in_fp8, policy.compiled]
    products = 2 * passes * size.frozen_parameters * tokens / (share * device.flops)
    computing = products + passes * micro_batches * _traffic_seconds(size, device)
    start = _STARTS_EAGER + _STARTS_OF_ADAPTED * len(size.adapted_widths)
    if policy.compiled:
        start /= 2
    # Kernels are started while others run; the slower of the two counts.
    return max(computing, passes * micro_batches * size.layers * start)


def _share_needed_again(size: NetworkSize) -> float:
    count, _ = size.norms
    last = size.layers * size.width * size.mlp_out if count <= _NORMS_BEFORE else 0
    return 1 - last / size.frozen_parameters


def estimate_generation_seconds(
    size: NetworkSize, device: DeviceSpeed, *, sentences: int, batch: int, answer: float
) -> float:
    """Seconds of extracting from sentences.

    Args:
        size: Of the network.
        device: What computes.
        sentences: How many.
        batch: How many at once.
        answer: Mean length of an answer, in tokens.
    """
    # Free places wait a little for others, so that some stand empty.
    steps = 1.2 * answer * max(1.0, sentences / batch)
    return steps * max(_traffic_seconds(size, device), size.layers * _STARTS_OF_GENERATION)


def _traffic_seconds(size: NetworkSize, device: DeviceSpeed) -> float:
    return _WEIGHT_TRAFFIC * size.frozen_parameters / device.bandwidth
