"""Both gradients of a low-rank product in one pass over the wide tensor they come from.

The gradient G of `frozen + inner @ up.T` gives those of the two factors, `G @ up` and
`G.T @ inner`. As two products each reads all of G, the widest tensor of a block, for a few columns;
the kernel here reads it once.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: plain products instead
    triton = None

__all__ = ["WIDE", "find_low_rank_gradients"]

WIDE = 4096
"""Features from which on one pass less over them saves more than a kernel of one's own costs."""
_LARGEST_RANK = 32


def find_low_rank_gradients(gradient: Tensor, inner: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `inner` and `up` in `frozen + inner @ up.T`.

    Args:
        gradient: (..., F), of the sum.
        inner: (..., R).
        up: (F, R).

    Returns:
        (..., R) and (F, R), in the dtype of the gradient.
    """
    is_wide = up.shape[0] >= WIDE and up.shape[1] <= _LARGEST_RANK
    if triton is None or not gradient.is_cuda or not is_wide:
        return gradient @ up, gradient.flatten(0, -2).T @ inner.flatten(0, -2)
    inner_grad, up_grad = torch.ops.tripletune.low_rank_gradients(gradient, inner, up)
    return inner_grad, up_grad


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _gradients_kernel(  # type: ignore[no-untyped-def]
        gradient, inner, up, inner_parts, up_parts, num_rows, num_columns, rank,
        STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr,
    ):  # fmt: skip
        # One program: COLUMNS features of STEPS times ROWS tokens. What other features add to a
        # token's gradient, and other tokens to a feature's, is summed up afterwards, in order.
        block = tl.program_id(0).to(tl.int64)
        column = block * COLUMNS + tl.arange(0, COLUMNS)
        part = tl.arange(0, RANK)
        is_column, is_part = (column < num_columns)[:, None], (part < rank)[None, :]
        factor = tl.load(
            up + column[:, None] * rank + part[None, :], mask=is_column & is_part, other=0.0
        )
        of_up = tl.zeros([COLUMNS, RANK], tl.float32)
        for step in range(STEPS):
            row = ((tl.program_id(1) * STEPS + step) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
            is_row = (row < num_rows)[:, None]
            tile = tl.load(
                gradient + row[:, None] * num_columns + column[None, :],
                mask=is_row & (column < num_columns)[None, :], other=0.0,
            )  # fmt: skip
            left = tl.load(
                inner + row[:, None] * rank + part[None, :], mask=is_row & is_part, other=0.0
            )
            tl.store(
                inner_parts + (block * num_rows + row[:, None]) * rank + part[None, :],
                tl.dot(tile, factor), mask=is_row & is_part,
            )  # fmt: skip
            of_up = tl.dot(tl.trans(tile), left, of_up)
        place = (tl.program_id(1).to(tl.int64) * num_columns + column[:, None]) * rank
        tl.store(up_parts + place + part[None, :], of_up, mask=is_column & is_part)

    @torch.library.custom_op("tripletune::low_rank_gradients", mutates_args=())
    def _find_gradients(gradient: Tensor, inner: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        columns, rank = up.shape
        rows = gradient.numel() // columns
        padded = max(16, triton.next_power_of_2(rank))
        wide, steps, tall = (256 if padded == 16 else 128), 8, 64
        grid = (triton.cdiv(columns, wide), triton.cdiv(rows, steps * tall))
        inner_parts = gradient.new_empty(grid[0], rows, rank, dtype=torch.float32)
        up_parts = gradient.new_empty(grid[1], columns, rank, dtype=torch.float32)
        _gradients_kernel[grid](
            gradient.contiguous(), inner.contiguous(), up.contiguous(), inner_parts, up_parts,
            rows, columns, rank, STEPS=steps, ROWS=tall, COLUMNS=wide, RANK=padded, num_warps=8,
        )  # fmt: skip
        inner_grad = inner_parts.sum(0).to(gradient.dtype).view(inner.shape)
        return inner_grad, up_parts.sum(0).to(gradient.dtype)

    @_find_gradients.register_fake
    def _(gradient: Tensor, inner: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        return gradient.new_empty(inner.shape), gradient.new_empty(up.shape)
