from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

from tripletune.models.nf4 import dequantize_nf4, dequantize_nf4_fp8, has_fast_kernel

# QLoRA, arXiv 2305.14314, appendix E.
VALUES = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    dtype=np.float32,
)  # fmt: skip


def quantize(shape: tuple[int, int], *, nested: bool, device: str = "cpu") -> tuple[Any, Any]:
    torch.manual_seed(0)
    weight = (0.02 * torch.randn(shape)).to(device, torch.bfloat16)
    return quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)


def expand(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """By the paper: a value of the table times the scale of its block of 64."""
    content = packed.cpu().numpy().reshape(-1)
    values = VALUES[np.stack([content >> 4, content & 15], axis=1).reshape(-1)]
    scales = state.absmax.float().cpu().numpy()
    if state.nested:
        outer = np.repeat(state.state2.absmax.cpu().numpy(), state.state2.blocksize)
        levels = state.state2.code.cpu().numpy()[state.absmax.cpu().numpy()]
        scales = levels * outer[: len(levels)] + float(state.offset)
    whole = values * np.repeat(scales, state.blocksize)[: len(values)]
    return torch.from_numpy(whole.reshape(tuple(state.shape)))


@pytest.mark.parametrize("nested", [False, True])
def test_weight_is_that_of_the_paper(nested):
    packed, state = quantize((128, 192), nested=nested)
    weight = dequantize_nf4(packed, state, torch.float32)
    # The bf16 of the state is what bitsandbytes expands to.
    torch.testing.assert_close(weight, expand(packed, state), rtol=2**-8, atol=0.0)
    assert weight.is_contiguous()


def test_the_processor_has_no_kernel_of_ours():
    packed, _ = quantize((64, 64), nested=True)
    assert not has_fast_kernel(packed)


def test_eight_bit_weight_can_be_turned():
    packed, state = quantize((128, 192), nested=True)
    factor = 448.0 / expand(packed, state).abs().max()
    lying = dequantize_nf4_fp8(packed, state, factor, transposed=False)
    turned = dequantize_nf4_fp8(packed, state, factor, transposed=True)
    assert (lying.dtype, tuple(turned.shape)) == (torch.float8_e4m3fn, (192, 128))
    assert torch.equal(turned.float(), lying.float().T)
    # Three bits of mantissa, and an even step below 2 ** -6.
    expected = expand(packed, state) * factor
    torch.testing.assert_close(lying.float(), expected, rtol=0.07, atol=2**-10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(128, 192), (4096, 4096), (320, 64)])
def test_kernel_gives_the_bits_of_bitsandbytes(shape, dtype):
    packed, state = quantize(shape, nested=True, device="cuda")
    state.dtype = dtype
    assert has_fast_kernel(packed)
    assert torch.equal(dequantize_nf4(packed, state, dtype), dequantize_4bit(packed, state))


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_kernel_runs_where_the_weight_lies():
    packed, state = quantize((128, 192), nested=True, device="cuda:1")
    assert torch.cuda.current_device() == 0
    weight = dequantize_nf4(packed, state, torch.bfloat16)
    assert torch.equal(weight, dequantize_4bit(packed, state))
