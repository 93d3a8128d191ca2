"""Products of NF4 layers for many tokens at once, as generation in large batches has them.

bitsandbytes multiplies with the packed weight, which pays while reading it is what takes time, for
a few tokens. From about a hundred tokens on the product itself does, and a half-precision weight
made for it by `nf4` is faster. The modules, their parameters and what is saved stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tripletune.models.nf4 import dequantize_nf4

__all__ = ["FEWEST_TOKENS", "expand_for_many_tokens"]

FEWEST_TOKENS = 96


def expand_for_many_tokens(model: Any, *, fewest_tokens: int = FEWEST_TOKENS) -> int:
    """Changes how the model's NF4 layers compute without gradients; returns how many it changed.

    Args:
        model: A model with bitsandbytes' NF4 layers, with or without adapter.
        fewest_tokens: Products with fewer tokens are left to bitsandbytes.
    """
    import bitsandbytes as bnb

    changed = 0
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit) and "forward" not in vars(module):
            # A plain attribute, set past nn.Module: it is not saved, moved or counted.
            object.__setattr__(module, "forward", _make_product(module, fewest_tokens))
            changed += 1
    return changed


def _make_product(module: Any, fewest_tokens: int) -> Any:
    multiply_packed = module.forward

    def multiply(x: Tensor) -> Tensor:
        state = module.weight.quant_state
        # Some processors have bitsandbytes pack weights in another way, which only it can read.
        is_readable = state is not None and not getattr(state, "packing_format_for_cpu", False)
        is_large = x.numel() // x.shape[-1] >= fewest_tokens
        if x.requires_grad or not is_readable or not is_large:
            product: Tensor = multiply_packed(x)
            return product
        dtype = module.compute_dtype or x.dtype
        weight = dequantize_nf4(module.weight.data, state, dtype)
        bias = None if module.bias is None else module.bias.to(dtype)
        return F.linear(x.to(dtype), weight, bias).to(x.dtype)

    return multiply
