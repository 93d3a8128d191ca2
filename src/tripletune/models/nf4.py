"""NF4 weights of bitsandbytes to half or 8-bit precision in one pass over memory, with Triton.

bitsandbytes first expands the 8-bit block scales (double quantisation) and then the 4-bit values,
in two kernels that reach about a third of the card's bandwidth. This kernel reads packed values
and both levels of scales once and writes the weight once. The values are the same to the last bit
of the output dtype; elsewhere than on CUDA bitsandbytes is called. A second kernel writes the
transposed weight, in the 8-bit form whose products want the summed axis contiguous.

Source: QLoRA, arXiv 2305.14314, section 3; layout as `bitsandbytes.functional.QuantState`: two
values a byte, the first in the high half; a scale for every `blocksize` values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tripletune.models.current_device import on_device_of

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: bitsandbytes is called instead
    triton = None

__all__ = ["dequantize_nf4", "dequantize_nf4_fp8", "has_fast_kernel"]

FP8 = torch.float8_e4m3fn


def has_fast_kernel(weight: Tensor) -> bool:
    """Whether `dequantize_nf4` runs its own kernel for this weight."""
    return triton is not None and weight.is_cuda


def dequantize_nf4(
    packed: Tensor, state: Any, dtype: torch.dtype, *, again: bool = False
) -> Tensor:
    """The weight that a packed `Params4bit` stands for.

    Args:
        packed: uint8, as bitsandbytes packs it.
        state: Its `QuantState`.
        dtype: bf16 or fp16 (any, where bitsandbytes is called).
        again: Changes nothing but that a compiler, which makes two calls that are alike into one
            and keeps the weight from the first to the second, does not find them so.

    Returns:
        `state.shape`, contiguous.
    """
    nested = getattr(state, "nested", False)
    if not has_fast_kernel(packed) or not nested or state.quant_type != "nf4":
        from bitsandbytes.functional import dequantize_4bit

        weight: Tensor = dequantize_4bit(packed, state)
        return weight.to(dtype)
    expanded: Tensor = _dequantize(
        packed.reshape(-1),
        state.absmax,
        state.state2.absmax,
        state.state2.code,
        state.code,
        state.offset,
        state.blocksize,
        state.state2.blocksize,
        list(state.shape),
        dtype,
        None,
        False,
        again,
    )
    return expanded


def dequantize_nf4_fp8(
    packed: Tensor, state: Any, inverse_scale: Tensor, *, transposed: bool
) -> Tensor:
    """The weight that a packed `Params4bit` stands for, times `inverse_scale`, in 8-bit floats.

    Args:
        packed: uint8, as bitsandbytes packs it.
        state: Its `QuantState`, of shape (F, E).
        inverse_scale: Scalar, fp32; brings the largest weight to what the format holds (448).
        transposed: Give (E, F).

    Returns:
        float8_e4m3fn, contiguous.
    """
    if not has_fast_kernel(packed) or not getattr(state, "nested", False):
        from bitsandbytes.functional import dequantize_4bit

        scaled: Tensor = (dequantize_4bit(packed, state).float() * inverse_scale).to(FP8)
        return scaled.T.contiguous() if transposed else scaled
    expanded: Tensor = _dequantize(
        packed.reshape(-1),
        state.absmax,
        state.state2.absmax,
        state.state2.code,
        state.code,
        state.offset,
        state.blocksize,
        state.state2.blocksize,
        list(state.shape),
        FP8,
        inverse_scale,
        transposed,
        False,
    )
    return expanded


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _dequantize_kernel(  # type: ignore[no-untyped-def]
        packed, scales, outer_scales, scale_code, value_code, offset, factor, out,
        num_bytes,
        BLOCK: tl.constexpr, GROUP: tl.constexpr, OUTER: tl.constexpr, SCALED: tl.constexpr,
    ):  # fmt: skip
        # A program expands BLOCK bytes; GROUP values share a scale, OUTER scales an outer scale.
        index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = index < num_bytes
        byte = tl.load(packed + index, mask=inside, other=0).to(tl.int32)
        group = (index * 2) // GROUP
        level = tl.load(scales + group, mask=inside, other=0).to(tl.int32)
        outer = tl.load(outer_scales + group // OUTER, mask=inside, other=0.0)
        scale = tl.load(scale_code + level) * outer + tl.load(offset)
        if SCALED:
            scale = scale * tl.load(factor)
        high = tl.load(value_code + (byte >> 4)) * scale
        low = tl.load(value_code + (byte & 15)) * scale
        both = tl.interleave(high, low).to(out.dtype.element_ty)
        place = tl.program_id(0).to(tl.int64) * BLOCK * 2 + tl.arange(0, BLOCK * 2)
        tl.store(out + place, both, mask=place < num_bytes * 2)

    @triton.jit  # type: ignore[untyped-decorator]
    def _transpose_kernel(  # type: ignore[no-untyped-def]
        packed, scales, outer_scales, scale_code, value_code, offset, factor, out,
        num_rows, row_bytes,
        SIDE: tl.constexpr, GROUP: tl.constexpr, OUTER: tl.constexpr, SCALED: tl.constexpr,
    ):  # fmt: skip
        # A program turns SIDE rows of SIDE values, which come as SIDE / 2 bytes a row.
        row = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
        column = tl.program_id(1) * (SIDE // 2) + tl.arange(0, SIDE // 2)
        inside = (row < num_rows)[:, None] & (column < row_bytes)[None, :]
        index = row.to(tl.int64)[:, None] * row_bytes + column[None, :]
        byte = tl.load(packed + index, mask=inside, other=0).to(tl.int32)
        group = (index * 2) // GROUP
        level = tl.load(scales + group, mask=inside, other=0).to(tl.int32)
        outer = tl.load(outer_scales + group // OUTER, mask=inside, other=0.0)
        scale = tl.load(scale_code + level) * outer + tl.load(offset)
        if SCALED:
            scale = scale * tl.load(factor)
        high = tl.load(value_code + (byte >> 4)) * scale
        low = tl.load(value_code + (byte & 15)) * scale
        both = tl.trans(tl.interleave(high, low)).to(out.dtype.element_ty)  # (columns, rows)
        wide = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
        place = wide.to(tl.int64)[:, None] * num_rows + row[None, :]
        tl.store(out + place, both, mask=(wide < row_bytes * 2)[:, None] & (row < num_rows)[None])

    @torch.library.custom_op("tripletune::dequantize_nf4", mutates_args=())
    def _dequantize(
        packed: Tensor,
        scales: Tensor,
        outer_scales: Tensor,
        scale_code: Tensor,
        value_code: Tensor,
        offset: Tensor,
        group: int,
        outer: int,
        shape: list[int],
        dtype: torch.dtype,
        factor: Tensor | None,
        transposed: bool,
        again: bool,
    ) -> Tensor:
        out = torch.empty(_order(shape, transposed), dtype=dtype, device=packed.device)
        arguments = (
            packed, scales, outer_scales, scale_code, value_code, offset, factor, out
        )  # fmt: skip
        # A fused multiply-add would round scales differently from bitsandbytes.
        options = {
            "GROUP": group, "OUTER": outer, "SCALED": factor is not None, "enable_fp_fusion": False
        }  # fmt: skip
        with on_device_of(packed):
            if transposed:
                side, (num_rows, width) = 64, shape
                tiles = (triton.cdiv(num_rows, side), triton.cdiv(width, side))
                _transpose_kernel[tiles](*arguments, num_rows, width // 2, SIDE=side, **options)
            else:
                block = 1024
                blocks = (triton.cdiv(packed.numel(), block),)
                _dequantize_kernel[blocks](*arguments, packed.numel(), BLOCK=block, **options)
        return out

    def _order(shape: list[int], transposed: bool) -> list[int]:
        return shape[::-1] if transposed else shape

    @_dequantize.register_fake
    def _(
        packed: Tensor,
        scales: Tensor,
        outer_scales: Tensor,
        scale_code: Tensor,
        value_code: Tensor,
        offset: Tensor,
        group: int,
        outer: int,
        shape: list[int],
        dtype: torch.dtype,
        factor: Tensor | None,
        transposed: bool,
        again: bool,
    ) -> Tensor:
        return torch.empty(_order(shape, transposed), dtype=dtype, device=packed.device)
