"""Gradient checkpointing of as many blocks as the memory plan asks for."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["checkpoint_blocks"]


def checkpoint_blocks(model: Any, count: int) -> int:
    """Makes the first `count` blocks compute their activations again in the backward pass.

    The others save them. Returns how many blocks there are. Random states are kept for the second
    computation, so that dropout is the same in both.

    Args:
        model: With blocks of `transformers`' `GradientCheckpointingLayer`.
        count: From 0 (none) to all.
    """
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    run_again: Any = functools.partial(checkpoint, use_reentrant=False)
    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for number, block in enumerate(blocks):
        again = number < count
        block.gradient_checkpointing = again
        if again:
            block._gradient_checkpointing_func = run_again
    return len(blocks)
