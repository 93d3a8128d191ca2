"""Frozen products in 8-bit floating point, on GPUs that have it (Ada, Hopper and later).

Values and gradients are scaled row by row to the range of `float8_e4m3fn`, the weight as a whole;
the product is summed in fp32 and comes back in half precision. The base is NF4 already, so the
three bits of mantissa lose little of the weight; what is lost of activations and gradients is the
price. LoRA, norms, attention and the language-model head stay in half precision.

Source: FP8 formats, arXiv 2209.05433; one scale a row as in `torch._scaled_mm`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tripletune.errors import ConfigError
from tripletune.models.nf4 import dequantize_nf4, dequantize_nf4_fp8

__all__ = ["Fp8Linear", "check_fp8", "find_weight_scale", "quantize_rows"]

LARGEST = 448.0


def check_fp8() -> None:
    """Makes sure that the GPU multiplies 8-bit floats.

    Raises:
        ConfigError: there is no GPU, or it is older than compute capability 8.9.
    """
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9):
        return
    found = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
    raise ConfigError(
        f"compute: 'fp8' needs a GPU of compute capability 8.9 or later (Ada, Hopper), found "
        f"{found}; use 'auto'"
    )


def find_weight_scale(packed: Tensor, state: Any) -> Tensor:
    """What one unit of the 8-bit weight stands for: the largest weight over 448; scalar, fp32."""
    return dequantize_nf4(packed, state, torch.bfloat16).abs().amax().float() / LARGEST


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(M, K) in 8 bits, and the (M, 1) fp32 scales by which it is multiplied to be x again."""
    # Numbers written out: a global would become an input of the compiled graph.
    scale = x.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-20) / 448.0
    return (x.float() / scale).clamp(-448.0, 448.0).to(torch.float8_e4m3fn), scale


class Fp8Linear(torch.autograd.Function):
    """`x @ W.T + bias` with a 4-bit W, forward and input gradient in 8 bits."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, packed: Tensor, state: Any, bias: Tensor | None, weight_scale: Tensor
    ) -> Tensor:
        """(..., E) to (..., F), F and E multiples of 16."""
        ctx.packed, ctx.state, ctx.weight_scale = packed, state, weight_scale
        weight = dequantize_nf4_fp8(packed, state, weight_scale.reciprocal(), transposed=False)
        return _multiply(x, weight, weight_scale, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The gradient of x; the weight and its bias are frozen."""
        (gradient,) = grad_outputs
        scale = ctx.weight_scale
        inverse = scale.reciprocal()
        weight = dequantize_nf4_fp8(ctx.packed, ctx.state, inverse, transposed=True)
        return _multiply(gradient, weight, scale, None), None, None, None, None


def _multiply(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    rows, scales = quantize_rows(x.flatten(0, -2))
    weight_scales = weight_scale.expand(1, weight.shape[0]).contiguous()
    product = torch._scaled_mm(
        rows,
        weight.t(),
        scale_a=scales,
        scale_b=weight_scales,
        bias=bias,
        out_dtype=x.dtype,
        use_fast_accum=True,
    )
    return product.view(*x.shape[:-1], weight.shape[0])
