"""Gradient checkpointing of as many blocks as the memory plan asks for.

What is not compiled is checkpointed by `torch.utils.checkpoint` from outside: the whole block runs
again. A compiled block does it inside its graph, whose backward half then has only what gradients
need: not the last product of the MLP, a third of ChatGLM's block, and no Python in between.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["checkpoint_blocks", "recompute_inside", "run_as_it_is"]

# It warns of in-place operators, which would change results that are kept: here, seeds alone.
logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)


def checkpoint_blocks(model: Any, count: int) -> int:
    """Makes the first `count` blocks compute their activations again in the backward pass.

    The others save them. Returns how many blocks there are. Random states are kept for the second
    computation, so that dropout is the same in both.

    Args:
        model: With blocks of `transformers`' `GradientCheckpointingLayer`.
        count: From 0 (none) to all.
    """
    run_again: Any = functools.partial(checkpoint, use_reentrant=False)
    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for number, block in enumerate(blocks):
        block.gradient_checkpointing = number < count
        if getattr(block, "_gradient_checkpointing_func", None) is not run_as_it_is:
            block._gradient_checkpointing_func = run_again
    return len(blocks)


def recompute_inside(forward: Any, *args: Any, **kwargs: Any) -> Any:
    """`forward(*args, **kwargs)`, to be compiled, with its activations computed again.

    Every operator is told so by itself: torch 2.11 lets those inside an `autograd.Function` keep
    their results otherwise.
    """
    return checkpoint(forward, *args, use_reentrant=False, context_fn=_recompute_all, **kwargs)


def _recompute_all() -> Any:
    contexts: Any = create_selective_checkpoint_contexts
    return contexts(_choose)


def _choose(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    is_random = torch.Tag.nondeterministic_seeded in operator.tags  # the seed of a dropout
    return CheckpointPolicy.MUST_SAVE if is_random else CheckpointPolicy.MUST_RECOMPUTE


def run_as_it_is(function: Any, *args: Any) -> Any:
    """`function(*args)`: the checkpointing function of a block that does it inside."""
    return function(*args)
