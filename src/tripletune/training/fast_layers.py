"""Faster forward and backward behind the same PEFT and bitsandbytes modules.

The modules, their parameters and what is saved stay as they are; only how a forward pass is
computed changes:

- the frozen product reads the weight dequantised by `nf4`, or kept in half precision when there is
  room for it (`keep_weights`), and never saves it for the backward pass;
- LoRA's products stay in the compute dtype (PEFT casts the whole input to fp32 and back), the first
  with its dropout inside where that is faster, and
  attention may take a projection and its low-rank product apart (`forward_apart`) to add them up
  where it splits them;
- each block is compiled, so that norms, residuals, rotary and GELU run as few kernels around the
  matrix products; once with its activations saved and once with them computed again.
"""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from tripletune.models.nf4 import dequantize_nf4
from tripletune.models.split_heads import LARGEST_RANK, LowRankSum
from tripletune.training.dropped_product import can_drop_inside, project_dropped
from tripletune.training.fp8 import Fp8Linear, find_weight_scale
from tripletune.training.lora_product import add_low_rank, add_scaled_product, hashed_dropout
from tripletune.training.recompute import recompute_inside, run_as_it_is

__all__ = ["compile_blocks", "speed_up_linear_layers"]


class FrozenLinear(torch.autograd.Function):
    """`x @ W.T + bias` with a 4-bit W that is dequantised again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, state: Any, bias: Tensor | None) -> Tensor:
        ctx.packed, ctx.state = packed, state
        weight = dequantize_nf4(packed, state, x.dtype)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = grad_outputs
        weight = dequantize_nf4(ctx.packed, ctx.state, gradient.dtype, again=True)
        return gradient @ weight, None, None, None


def speed_up_linear_layers(
    model: Any, *, dtype: torch.dtype, keep_weights: bool, in_fp8: bool = False
) -> int:
    """Changes how the model's NF4 layers compute; returns how many were changed.

    Args:
        model: A PEFT model over a bitsandbytes NF4 base.
        dtype: Compute dtype.
        keep_weights: Keep each dequantised weight (two bytes a parameter) instead of making it
            again for every product.
        in_fp8: Multiply in 8 bits while training; evaluation stays in `dtype`.
    """
    import bitsandbytes as bnb

    changed = 0
    for module in list(model.modules()):
        base = getattr(module, "base_layer", module)
        if not isinstance(base, bnb.nn.Linear4bit) or hasattr(base, "_is_fast"):
            continue
        product = _make_product(base, dtype, keep_weights=keep_weights, in_fp8=in_fp8)
        # Plain attributes, set past nn.Module: nothing here is saved, moved or counted with it.
        object.__setattr__(base, "_is_fast", True)
        object.__setattr__(base, "forward", product)
        if base is not module and len(module.active_adapters) == 1:
            adapted = _make_adapted_product(module, product)
            object.__setattr__(module, "forward", adapted)
            object.__setattr__(module, "forward_apart", partial(adapted, apart=True))
        changed += 1
    return changed


def compile_blocks(model: nn.Module, *, any_size: bool = False) -> int:
    """Compiles each transformer block in place; returns how many.

    A block whose `gradient_checkpointing` is on computes its activations again, whether that was
    switched on before or is later.

    Args:
        model: Whose blocks take hidden states (B, S, E) first.
        any_size: Compile for tensors of any size, for masks that are no tensors. Otherwise only
            the number of tokens is left open: the network's sizes are constants in the kernels,
            and no two sizes are taken for one because they happen to be equal once; and a block is
            checkpointed inside what is compiled.
    """
    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    torch._dynamo.config.cache_size_limit = max(64, torch._dynamo.config.cache_size_limit)
    for block in blocks:
        forward = _find_plain_forward(block)
        kept = torch.compile(forward, dynamic=any_size)
        if any_size:
            _put_in_place(block, kept, None)
            continue
        recomputed = torch.compile(partial(recompute_inside, forward), dynamic=False)
        _put_in_place(block, _leave_lengths_open(kept), _leave_lengths_open(recomputed))
        block._gradient_checkpointing_func = run_as_it_is
    return len(blocks)


def _find_plain_forward(block: Any) -> Any:
    """A block's forward pass without the checkpointing that newer `transformers` wrap it in."""
    if "forward" in vars(block):
        return block.forward
    forward = type(block).forward
    while getattr(forward, "__code__", None) and "checkpointing" in forward.__code__.co_name:
        forward = forward.__wrapped__
    return MethodType(forward, block)


def _put_in_place(block: Any, kept: Any, recomputed: Any) -> None:
    """Has a block run one of two compiled passes; without the second, checkpointed from outside."""
    is_outside = "__call__" in vars(GradientCheckpointingLayer)  # older `transformers`

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if block.gradient_checkpointing and block.training:
            if not getattr(block, "_can_checkpoint_with_cache", False):
                # What it writes into a cache it would write twice.
                args = tuple(map(_leave_out_cache, args))
                kwargs = {name: _leave_out_cache(value) for name, value in kwargs.items()}
            checkpoint = block._gradient_checkpointing_func
            if checkpoint is run_as_it_is:
                return recomputed(hidden_states, *args, **kwargs)
            if not is_outside:
                return checkpoint(partial(kept, **kwargs), hidden_states, *args)
        return kept(hidden_states, *args, **kwargs)

    block.forward = forward


def _leave_out_cache(value: Any) -> Any:
    return None if isinstance(value, Cache) else value


def _leave_lengths_open(compiled: Any) -> Any:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        length = hidden_states.shape[1]
        torch._dynamo.maybe_mark_dynamic(hidden_states, 1)
        for argument in (*args, *kwargs.values()):
            for tensor in argument if isinstance(argument, (tuple, list)) else (argument,):
                _mark_lengths(tensor, length)
        return compiled(hidden_states, *args, **kwargs)

    return forward


def _mark_lengths(value: Any, length: int) -> None:
    """Marks the sizes that count tokens: those of places, and those that equal the row's length."""
    if not isinstance(value, Tensor) or value.dim() == 0:
        return
    if value.dim() == 1:
        torch._dynamo.maybe_mark_dynamic(value, 0)
        return
    for axis, size in enumerate(value.shape):
        if size == length:
            torch._dynamo.maybe_mark_dynamic(value, axis)


def _make_gathered_product(base: Any, dtype: torch.dtype) -> Any:
    """Of a layer that FSDP has cut: weight and bias are there while its block computes."""
    apply: Any = FrozenLinear.apply

    def multiply(x: Tensor) -> Tensor:
        packed = base.weight.view(torch.uint8)
        product: Tensor = apply(x.to(dtype), packed, base.quant_state, base.bias)
        return product

    return multiply


def _make_product(base: Any, dtype: torch.dtype, *, keep_weights: bool, in_fp8: bool) -> Any:
    if not hasattr(base.weight, "quant_state"):
        return _make_gathered_product(base, dtype)
    state = base.weight.quant_state
    bias = None if base.bias is None else base.bias.data.to(dtype)
    if keep_weights:
        kept = dequantize_nf4(base.weight.data, state, dtype)
        object.__setattr__(base, "kept_weight", kept)
        return lambda x: F.linear(x.to(dtype), kept, bias)
    packed = base.weight.data
    apply: Any = FrozenLinear.apply

    def multiply(x: Tensor) -> Tensor:
        product: Tensor = apply(x.to(dtype), packed, state, bias)
        return product

    if not in_fp8:
        return multiply
    apply_fp8: Any = Fp8Linear.apply
    weight_scale = find_weight_scale(packed, state)

    def multiply_in_fp8(x: Tensor) -> Tensor:
        if not base.training:
            return multiply(x)
        product: Tensor = apply_fp8(x.to(dtype), packed, state, bias, weight_scale)
        return product

    return multiply_in_fp8


def _make_adapted_product(module: Any, product: Any) -> Any:
    (name,) = module.active_adapters
    plain = module.forward
    down, up = module.lora_A[name].weight, module.lora_B[name].weight  # (R, E), (F, R)
    dropout, scaling = module.lora_dropout[name], module.scaling[name]
    rate = getattr(dropout, "p", 0.0)
    on_gpu = up.is_cuda

    def forward(x: Tensor, *args: Any, apart: bool = False, **kwargs: Any) -> Any:
        if module.disable_adapters or module.merged or args or kwargs:
            output: Tensor = plain(x, *args, **kwargs)
            return output
        frozen: Tensor = product(x)
        x = x.to(frozen.dtype)
        is_compiled = on_gpu and torch.compiler.is_compiling()
        factor = down.to(frozen.dtype)
        if not (is_compiled and module.training):
            inner = F.linear(dropout(x), factor)
        elif can_drop_inside(x, factor, rate):
            inner = project_dropped(x, factor, rate)
        else:  # a hash is a dozen operations: one kernel for a compiler
            inner = F.linear(hashed_dropout(x, rate), factor)
        if is_compiled and apart and up.shape[1] <= LARGEST_RANK:
            return LowRankSum(frozen, inner * scaling, up.to(frozen.dtype))
        if is_compiled:
            return add_low_rank(frozen, inner * scaling, up.to(frozen.dtype))
        if on_gpu:
            return add_scaled_product(frozen, inner, up.to(frozen.dtype), scaling)
        return frozen + F.linear(inner * scaling, up.to(frozen.dtype))

    return forward
