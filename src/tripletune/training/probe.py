"""A trial of the largest micro-batch before the first step, which leaves no trace in the run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from tripletune.models.sdpa import without_cudnn_attention
from tripletune.training.faults import is_out_of_memory

__all__ = ["try_micro_batch", "undisturbed_randomness"]


def try_micro_batch(model: Any, batch: dict[str, Any]) -> int | None:
    """The peak of one forward and backward pass, in bytes; None when memory does not suffice.

    Random states, the model's mode, its weights and its gradients are as before. On a device that
    does not count memory the peak is 0.

    Args:
        model: On its device; what is trained has no gradients yet.
        batch: As the collators make it.
    """
    device = model.device
    on_gpu = device.type == "cuda"
    was_training = model.training
    model.train()
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    failed = False
    try:
        with undisturbed_randomness(device), without_cudnn_attention():
            _forward_and_backward(model, batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = True
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
    # Outside the handler, whose traceback keeps the activations alive.
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else 0
    if on_gpu:
        torch.cuda.empty_cache()
    return None if failed else peak


def _forward_and_backward(model: Any, batch: dict[str, Any]) -> None:
    device = model.device
    inputs = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }
    # As the Trainer does it: half precision by autocast where the GPU has no bf16.
    in_fp16 = device.type == "cuda" and not torch.cuda.is_bf16_supported()
    with torch.autocast("cuda", torch.float16) if in_fp16 else nullcontext():
        loss = model(**inputs).loss
    loss.backward()


@contextmanager
def undisturbed_randomness(device: torch.device) -> Iterator[None]:
    """Anything may draw random numbers inside; afterwards the generators are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
