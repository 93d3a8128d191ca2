"""LoRA's two small products on the GPU, written so that a compiled block makes little of them.

A LoRA layer adds `scaling * dropout(x) @ A.T @ B.T` to a frozen product. As separate operations the
random numbers of the dropout and the passes over the wide output cost a tenth of a training step:

- `hashed_dropout` takes its mask from a hash of an element's place and one random seed, a few
  integer operations each, where Philox takes about a hundred;
- `add_low_rank` writes the rank as a short sum of outer products, which the compiler adds while it
  reads the frozen product for whatever comes next.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["add_low_rank", "hashed_dropout"]

_LARGEST_SUM = 16


def hashed_dropout(x: Tensor, probability: float) -> Tensor:
    """Dropout whose mask is a hash (the finaliser of MurmurHash3) of place and a random seed.

    Args:
        x: Up to 2**31 elements.
        probability: Of an element to become 0; the others are divided by 1 - probability.

    Returns:
        The shape and dtype of x. The seed comes from torch's random state of x's device.
    """
    if probability == 0.0:
        return x
    seed = torch.randint(0, 2**31 - 1, (), dtype=torch.int32, device=x.device)
    place = torch.arange(x.numel(), dtype=torch.int32, device=x.device).view(x.shape)
    # Seed before factor: a factor on a known place is folded into a constant too large for int32.
    bits = (place ^ seed) * -1640531527
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    bits = bits * -2048144789
    bits = bits ^ ((bits >> 13) & 0x7FFFF)
    bits = bits * -1028477387
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) & 0x7FFFFFFF
    kept = bits >= int(probability * 2**31)
    return torch.where(kept, x * (1.0 / (1.0 - probability)), 0.0)


def add_low_rank(frozen: Tensor, inner: Tensor, up: Tensor) -> Tensor:
    """`frozen + inner @ up.T`, as a sum over the rank where that is small.

    Args:
        frozen: (..., F).
        inner: (..., R).
        up: (F, R).
    """
    if up.shape[1] > _LARGEST_SUM:
        return frozen + inner @ up.T
    summed: Tensor = _AddLowRank.apply(frozen, inner, up)  # type: ignore[no-untyped-call]
    return summed


class _AddLowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frozen: Tensor, inner: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(inner, up)
        total = frozen.float()
        for rank in range(up.shape[1]):
            total = total + inner[..., rank : rank + 1].float() * up[:, rank].float()
        return total.to(frozen.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = grad_outputs
        inner, up = ctx.saved_tensors
        return gradient, gradient @ up, gradient.flatten(0, -2).T @ inner.flatten(0, -2)
