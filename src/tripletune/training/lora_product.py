"""LoRA's two small products on the GPU, written so that a compiled block makes little of them.

A LoRA layer adds `scaling * dropout(x) @ A.T @ B.T` to a frozen product. As separate operations the
random numbers of the dropout and the passes over the wide output cost a tenth of a training step:

- `hashed_dropout` takes its mask from a hash of an element's place and one random seed, a few
  integer operations each, where Philox takes about a hundred;
- `add_low_rank` multiplies the second matrix while it passes over the frozen product once.

Where nothing is compiled, a hash would be a dozen kernels: torch's own dropout is one, and
`add_scaled_product` two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tripletune.models.low_rank import WIDE, find_low_rank_gradients

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: plain products instead
    triton = None

__all__ = ["add_low_rank", "add_scaled_product", "hashed_dropout"]

_LARGEST_RANK = 128


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
    """`frozen + inner @ up.T`, on CUDA in one pass where it is wide.

    Args:
        frozen: (..., F).
        inner: (..., R).
        up: (F, R).
    """
    if triton is None or not frozen.is_cuda or up.shape[1] > _LARGEST_RANK:
        return frozen + inner @ up.T
    if up.shape[0] < WIDE:
        return add_scaled_product(frozen, inner, up, 1.0)
    added: Tensor = torch.ops.tripletune.add_low_rank(frozen, inner, up)
    return added


def add_scaled_product(frozen: Tensor, inner: Tensor, up: Tensor, scaling: float) -> Tensor:
    """`frozen + scaling * inner @ up.T` in as few kernels as there are without a compiler.

    Args:
        frozen: (..., F).
        inner: (..., R).
        up: (F, R).
        scaling: Of the product.
    """
    total = torch.addmm(frozen.flatten(0, -2), inner.flatten(0, -2), up.T, alpha=scaling)
    return total.view(frozen.shape)


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _add_kernel(  # type: ignore[no-untyped-def]
        frozen, inner, up, out, num_rows, num_columns, rank,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr,
    ):  # fmt: skip
        row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        part = tl.arange(0, RANK)
        is_row, is_column, is_part = row < num_rows, column < num_columns, part < rank
        inside = is_row[:, None] & is_column[None, :]
        place = row[:, None] * num_columns + column[None, :]
        total = tl.load(frozen + place, mask=inside, other=0.0)
        left = tl.load(
            inner + row[:, None] * rank + part[None, :],
            mask=is_row[:, None] & is_part[None, :], other=0.0,
        )  # fmt: skip
        right = tl.load(
            up + column[None, :] * rank + part[:, None],
            mask=is_column[None, :] & is_part[:, None], other=0.0,
        )  # fmt: skip
        total = tl.dot(left, right, total.to(tl.float32))
        tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)

    @torch.library.custom_op("tripletune::add_low_rank", mutates_args=())
    def _add(frozen: Tensor, inner: Tensor, up: Tensor) -> Tensor:
        out = torch.empty_like(frozen, memory_format=torch.contiguous_format)
        columns, rank = up.shape
        rows = frozen.numel() // columns
        _add_kernel[(triton.cdiv(columns, 128), triton.cdiv(rows, 64))](
            frozen.contiguous(), inner.contiguous(), up.contiguous(), out, rows, columns, rank,
            ROWS=64, COLUMNS=128, RANK=max(16, triton.next_power_of_2(rank)),
        )  # fmt: skip
        return out

    @_add.register_fake
    def _(frozen: Tensor, inner: Tensor, up: Tensor) -> Tensor:
        return torch.empty_like(frozen, memory_format=torch.contiguous_format)

    def _save_factors(ctx: Any, inputs: Any, output: Any) -> None:
        _, inner, up = inputs
        ctx.save_for_backward(inner, up)

    def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner, up = ctx.saved_tensors
        return gradient, *find_low_rank_gradients(gradient, inner, up)

    _add.register_autograd(_differentiate, setup_context=_save_factors)
