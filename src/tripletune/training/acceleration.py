"""Which fast paths a run takes on the machine at hand, each fallback said by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from tripletune.models.attention_switch import attends_plainly, switched_attention
from tripletune.models.causal_mask import give_runs_to_layers, number_documents
from tripletune.models.head_sizes import find_head_width
from tripletune.models.packed_attention import (
    PACKED_ATTENTION,
    find_seen_runs,
    has_packed_attention,
    register_packed_attention,
)
from tripletune.models.slot_attention import KERNEL_WIDTHS
from tripletune.training.fast_layers import compile_blocks, speed_up_linear_layers
from tripletune.training.fp8 import check_fp8
from tripletune.training.labelled_loss import use_labelled_loss
from tripletune.training.network_size import is_native

__all__ = [
    "accelerate_layers",
    "evaluation_as_it_is",
    "has_room_for_weights",
    "plain_attention",
    "speed_up_network",
    "switch_attention",
]

logger = logging.getLogger("tripletune")

SWITCHED = (PACKED_ATTENTION, "flex_attention")
"""Attention implementations for training that generation does without."""


def has_room_for_weights(model: Any) -> bool:
    """Whether the dequantised weights take a quarter of the free host memory at most.

    On a GPU that is for the plan to say; without one they are not kept.
    """
    if model.device.type == "cuda":
        return False
    import psutil

    num_parameters = sum(
        module.in_features * module.out_features
        for module in model.modules()
        if type(module).__name__ == "Linear4bit"
    )
    return bool(4 * num_parameters <= psutil.virtual_memory().available / 4)


def accelerate_layers(
    model: Any, *, keep_weights: bool | None = None, in_fp8: bool = False
) -> list[str]:
    """Switches a PEFT model's NF4 layers to the fast path; returns what was switched on.

    On the CPU this is needed before any evaluation, too: there bitsandbytes rearranges a weight in
    place at the first evaluation, after which it cannot be trained through.

    Args:
        model: A PEFT model, NF4 or not.
        keep_weights: See `speed_up_linear_layers`. None: when there is room.
        in_fp8: Likewise.

    Raises:
        ConfigError: the GPU cannot multiply in 8 bits.
    """
    if in_fp8:
        check_fp8()
    dtype = model.get_input_embeddings().weight.dtype
    keep = has_room_for_weights(model) if keep_weights is None else keep_weights
    if not speed_up_linear_layers(model, dtype=dtype, keep_weights=keep, in_fp8=in_fp8):
        return []
    if in_fp8:
        return ["NF4 dequantised to 8 bits in each product"]
    return ["kept dequantised weights" if keep else "NF4 dequantised in each product"]


def speed_up_network(model: Any, *, compiled: bool = True) -> list[str]:
    """Switches a model to the fast paths there are on its device; returns what was done.

    That is the head on labelled tokens and, on a GPU, packed attention and compiled blocks.

    Args:
        model: A PEFT model.
        compiled: Whether to compile, on a GPU; once for rows of every length.
    """
    base = model.get_base_model()
    on_gpu = model.device.type == "cuda"
    used = [switch_attention(base, compiled=compiled)] if on_gpu else []
    if not is_native(base) and use_labelled_loss(base):
        used.append("head on labelled tokens")
    if not on_gpu:
        return used
    if compiled and sum(parameter.numel() for parameter in model.parameters()) < 10**9:
        # The first block then needs no compilation of its own, for inputs without gradient: a third
        # of what a small model waits for, against a gradient nobody needs.
        base.enable_input_require_grads()
    has_mask_object = base.config._attn_implementation == "flex_attention"
    if compiled and compile_blocks(model, any_size=has_mask_object):
        used.append("compiled blocks")
    return used


def switch_attention(base: Any, *, compiled: bool = True) -> str:
    """Gives a network the fastest attention for packed rows that it can have; returns its name.

    Flex attention comes second, and only to what is compiled: as it is it takes all the scores.
    """
    width = find_head_width(base.config)
    if has_packed_attention() and width in KERNEL_WIDTHS and attends_plainly(base):
        register_packed_attention()
        base.set_attn_implementation(PACKED_ATTENTION)
        if not is_native(base):
            base.get_decoder().register_forward_pre_hook(_describe_documents, with_kwargs=True)
        return "packed attention"
    if not compiled:
        return str(base.config._attn_implementation)
    if getattr(base, "_supports_flex_attn", False):
        base.set_attn_implementation("flex_attention")
        return "flex attention"
    logger.warning("%s 不支持 flex attention，使用 sdpa", type(base).__name__)
    return "sdpa"


def _describe_documents(
    decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Gives a packed row's documents to a network that cannot tell them by itself."""
    positions = kwargs.get("position_ids")
    alone = kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None
    if alone and positions is not None and decoder.config._attn_implementation == PACKED_ATTENTION:
        runs = find_seen_runs(number_documents(positions))
        kwargs["attention_mask"] = give_runs_to_layers(decoder.config, runs)
    return args, kwargs


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """Generation inside: `sdpa` (`eager` where there is none), not compiled; then as before."""
    base = model.get_base_model()
    switched: AbstractContextManager[None] = nullcontext()
    if base.config._attn_implementation in SWITCHED:
        switched = switched_attention(base, "sdpa" if base._supports_sdpa else "eager")
    with switched, torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def evaluation_as_it_is(model: Any) -> Iterator[None]:
    """Losses without gradients inside: nothing is compiled anew for them.

    Compiling all blocks once more takes longer than it saves. Flex attention alone stays compiled:
    as it is it takes all the scores.
    """
    in_flex = model.get_base_model().config._attn_implementation == "flex_attention"
    with nullcontext() if in_flex else torch.compiler.set_stance("force_eager"):
        yield
