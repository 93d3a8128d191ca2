"""Which fast paths a run takes on the machine at hand, each fallback said by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tripletune.training.fast_layers import compile_blocks, speed_up_linear_layers

__all__ = ["accelerate_layers", "compile_model", "has_room_for_weights", "plain_attention"]

logger = logging.getLogger("tripletune")


def has_room_for_weights(model: Any) -> bool:
    """Whether the dequantised weights can be kept beside what training needs.

    On a GPU that is two bytes a parameter beside 24 GiB for activations; on the CPU four bytes a
    parameter in at most a quarter of the free memory.
    """
    num_parameters = sum(
        module.in_features * module.out_features
        for module in model.modules()
        if type(module).__name__ == "Linear4bit"
    )
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        return 2 * num_parameters + 24 * 2**30 <= free
    import psutil

    return bool(4 * num_parameters <= psutil.virtual_memory().available / 4)


def accelerate_layers(model: Any, *, keep_weights: bool | None = None) -> list[str]:
    """Switches a PEFT model's NF4 layers to the fast path; returns what was switched on.

    On the CPU this is needed before any evaluation, too: there bitsandbytes rearranges a weight in
    place at the first evaluation, after which it cannot be trained through.

    Args:
        model: A PEFT model, NF4 or not.
        keep_weights: See `speed_up_linear_layers`. None: when there is room.
    """
    dtype = model.get_input_embeddings().weight.dtype
    keep = has_room_for_weights(model) if keep_weights is None else keep_weights
    if not speed_up_linear_layers(model, dtype=dtype, keep_weights=keep):
        return []
    return ["kept dequantised weights" if keep else "NF4 dequantised in each product"]


def compile_model(model: Any) -> list[str]:
    """Switches a model on a GPU to flex attention and compiled blocks; returns what was done."""
    base = model.get_base_model()
    used = []
    if getattr(base, "_supports_flex_attn", False):
        base.set_attn_implementation("flex_attention")
        used.append("flex attention")
    else:
        logger.warning("%s 不支持 flex attention，使用 sdpa", type(base).__name__)
    if compile_blocks(model, dynamic=True):
        used.append("compiled blocks")
    return used


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Generation inside: attention as `sdpa`, nothing compiled; afterwards as before."""
    base = model.get_base_model()
    before = base.config._attn_implementation
    if before == "flex_attention":
        base.set_attn_implementation("sdpa")
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if before == "flex_attention":
            base.set_attn_implementation(before)
