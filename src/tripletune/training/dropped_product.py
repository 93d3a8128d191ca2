"""LoRA's first product with its dropout inside: `dropout(x) @ down.T`, on CUDA.

As separate operations the dropped input is written and read again, forward and backward. The
kernels here make it where they multiply: once over x forward, and once backward for both gradients.
Only x is saved, which the norm before saves anyway, and the seed of the mask.

The mask is a hash (the finaliser of MurmurHash3) of an element's place and the seed. Each hash
serves two elements, half a row apart, with 16 bits each, since it is the hashes that take the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch
    triton = None

__all__ = ["LEAST_WIDTH", "can_drop_inside", "project_dropped"]

LEAST_WIDTH = 4096
"""Features from which on the kernels beat separate operations."""
_LARGEST_RANK = 64


def can_drop_inside(x: Tensor, down: Tensor, probability: float) -> bool:
    """Whether `project_dropped` takes these, and is worth its while.

    Args:
        x: (..., E).
        down: (R, E).
        probability: Of the dropout.
    """
    rank, width = down.shape
    there = triton is not None and x.is_cuda and probability > 0.0
    return there and rank <= _LARGEST_RANK and width >= LEAST_WIDTH and width % 2 == 0


def project_dropped(x: Tensor, down: Tensor, probability: float) -> Tensor:
    """`dropout(x) @ down.T`, differentiable in both.

    Args:
        x: (..., E) on CUDA, E even, as `can_drop_inside` allows.
        down: (R, E), of the same dtype.
        probability: Of an element to become 0, to 16 bits; the others are divided by
            1 - probability.

    Returns:
        (..., R). The mask's seed comes from torch's random state of x's device.
    """
    seed = torch.randint(0, 2**31 - 1, (), dtype=torch.int32, device=x.device)
    product: Tensor = torch.ops.tripletune.project_dropped(x, down, seed, probability)
    return product


if triton is not None:

    @triton.jit
    def _hash(row, column, half, seed):  # type: ignore[no-untyped-def]
        # Of the pair (row, column) and (row, column + half).
        bits = ((row[:, None] * half + column[None, :]) ^ seed) * -1640531527
        bits = bits ^ ((bits >> 16) & 0xFFFF)
        bits = bits * -2048144789
        bits = bits ^ ((bits >> 13) & 0x7FFFF)
        bits = bits * -1028477387
        return bits ^ ((bits >> 16) & 0xFFFF)

    @triton.jit
    def _drop(tile, bits, threshold, factor):  # type: ignore[no-untyped-def]
        return tl.where(bits >= threshold, tile.to(tl.float32) * factor, 0.0)

    @triton.jit  # type: ignore[untyped-decorator]
    def _project_kernel(  # type: ignore[no-untyped-def]
        x, down, seed, out, num_rows, half, rank, threshold, factor,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        part = tl.arange(0, RANK)
        is_row, is_part = (row < num_rows)[:, None], part < rank
        line = x + row.to(tl.int64)[:, None] * (2 * half)
        key = tl.load(seed)
        total = tl.zeros([ROWS, RANK], tl.float32)
        for start in range(0, half, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            inside = is_row & (column < half)[None, :]
            known = is_part[:, None] & (column < half)[None, :]
            bits = _hash(row, column, half, key)
            factors = down + part[:, None] * (2 * half) + column[None, :]
            tile = tl.load(line + column[None, :], mask=inside, other=0.0)
            other = tl.load(line + half + column[None, :], mask=inside, other=0.0)
            tile = _drop(tile, bits & 0xFFFF, threshold, factor).to(x.dtype.element_ty)
            other = _drop(other, (bits >> 16) & 0xFFFF, threshold, factor).to(x.dtype.element_ty)
            near = tl.load(factors, mask=known, other=0.0)  # (RANK, COLUMNS)
            far = tl.load(factors + half, mask=known, other=0.0)
            total = tl.dot(tile, tl.trans(near), total)
            total = tl.dot(other, tl.trans(far), total)
        tl.store(
            out + row.to(tl.int64)[:, None] * rank + part[None, :],
            total.to(out.dtype.element_ty), mask=is_row & is_part[None, :],
        )  # fmt: skip

    @triton.jit  # type: ignore[untyped-decorator]
    def _gradients_kernel(  # type: ignore[no-untyped-def]
        x, down, seed, gradient, x_grad, down_parts, num_rows, half, rank, threshold, factor,
        STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr,
    ):  # fmt: skip
        # One program: COLUMNS features of both halves and STEPS times ROWS tokens.
        column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
        part = tl.arange(0, RANK)
        is_column, is_part = (column < half)[None, :], part < rank
        known = is_part[:, None] & is_column
        factors = part[:, None] * (2 * half) + column[None, :]
        near = tl.load(down + factors, mask=known, other=0.0)  # (RANK, COLUMNS)
        far = tl.load(down + factors + half, mask=known, other=0.0)
        key = tl.load(seed)
        of_near = tl.zeros([RANK, COLUMNS], tl.float32)
        of_far = tl.zeros([RANK, COLUMNS], tl.float32)
        for step in range(STEPS):
            row = (tl.program_id(1) * STEPS + step) * ROWS + tl.arange(0, ROWS)
            is_row = (row < num_rows)[:, None]
            inside = is_row & is_column
            place = row.to(tl.int64)[:, None] * (2 * half) + column[None, :]
            bits = _hash(row, column, half, key)
            low, high = bits & 0xFFFF, (bits >> 16) & 0xFFFF
            slope = tl.load(
                gradient + row.to(tl.int64)[:, None] * rank + part[None, :],
                mask=is_row & is_part[None, :], other=0.0,
            )  # fmt: skip
            tile = tl.load(x + place, mask=inside, other=0.0)
            other = tl.load(x + place + half, mask=inside, other=0.0)
            tile = _drop(tile, low, threshold, factor).to(x.dtype.element_ty)
            other = _drop(other, high, threshold, factor).to(x.dtype.element_ty)
            of_near = tl.dot(tl.trans(slope), tile, of_near)
            of_far = tl.dot(tl.trans(slope), other, of_far)
            left = _drop(tl.dot(slope, near), low, threshold, factor)
            right = _drop(tl.dot(slope, far), high, threshold, factor)
            tl.store(x_grad + place, left.to(x_grad.dtype.element_ty), mask=inside)
            tl.store(x_grad + place + half, right.to(x_grad.dtype.element_ty), mask=inside)
        parts = down_parts + tl.program_id(1).to(tl.int64) * rank * (2 * half) + factors
        tl.store(parts, of_near, mask=known)
        tl.store(parts + half, of_far, mask=known)

    def _constants(probability: float) -> tuple[int, float]:
        """The smallest 16 bits that are kept, and what is kept is multiplied with."""
        return round(probability * 2**16), 1.0 / (1.0 - probability)

    @torch.library.custom_op("tripletune::project_dropped", mutates_args=())
    def _project(x: Tensor, down: Tensor, seed: Tensor, probability: float) -> Tensor:
        rank, width = down.shape
        rows = x.numel() // width
        out = x.new_empty(*x.shape[:-1], rank)
        _project_kernel[(triton.cdiv(rows, 32),)](
            x.contiguous(), down.contiguous(), seed, out, rows, width // 2, rank,
            *_constants(probability), ROWS=32, COLUMNS=64,
            RANK=max(16, triton.next_power_of_2(rank)), num_warps=4, num_stages=3,
        )  # fmt: skip
        return out

    @_project.register_fake
    def _(x: Tensor, down: Tensor, seed: Tensor, probability: float) -> Tensor:
        return x.new_empty(*x.shape[:-1], down.shape[0])

    @torch.library.custom_op("tripletune::project_dropped_backward", mutates_args=())
    def _project_backward(
        gradient: Tensor, x: Tensor, down: Tensor, seed: Tensor, probability: float
    ) -> tuple[Tensor, Tensor]:
        rank, width = down.shape
        rows = x.numel() // width
        x_grad = torch.empty_like(x, memory_format=torch.contiguous_format)
        steps, tall, wide = 8, 64, 64
        grid = (triton.cdiv(width // 2, wide), triton.cdiv(rows, steps * tall))
        down_parts = x.new_empty(grid[1], rank, width, dtype=torch.float32)
        _gradients_kernel[grid](
            x.contiguous(), down.contiguous(), seed, gradient.contiguous(), x_grad, down_parts,
            rows, width // 2, rank, *_constants(probability), STEPS=steps, ROWS=tall, COLUMNS=wide,
            RANK=max(16, triton.next_power_of_2(rank)), num_warps=4,
        )  # fmt: skip
        return x_grad, down_parts.sum(0).to(down.dtype)

    @_project_backward.register_fake
    def _(
        gradient: Tensor, x: Tensor, down: Tensor, seed: Tensor, probability: float
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(down)

    def _save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
        x, down, seed, ctx.probability = inputs
        ctx.save_for_backward(x, down, seed)

    def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, down, seed = ctx.saved_tensors
        x_grad, down_grad = torch.ops.tripletune.project_dropped_backward(
            gradient, x, down, seed, ctx.probability
        )
        return x_grad, down_grad, None, None

    _project.register_autograd(_differentiate, setup_context=_save_inputs)
