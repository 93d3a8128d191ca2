from __future__ import annotations

import pytest
import torch

from tripletune.errors import ConfigError
from tripletune.models.nf4 import dequantize_nf4, dequantize_nf4_fp8
from tripletune.training.fp8 import Fp8Linear, check_fp8, find_weight_scale, quantize_rows


def quantized_weight(rows: int, columns: int, device: str = "cpu"):
    from bitsandbytes.functional import quantize_4bit

    torch.manual_seed(0)
    weight = torch.randn(rows, columns, device=device) * 0.02
    return quantize_4bit(weight.bfloat16(), quant_type="nf4", compress_statistics=True)


def test_rows_come_back_to_three_bits_of_mantissa():
    torch.manual_seed(0)
    x = torch.randn(5, 64) * torch.tensor([[1e-6], [1e-2], [1.0], [1e3], [0.0]])
    rows, scales = quantize_rows(x)
    assert rows.dtype == torch.float8_e4m3fn
    assert scales.shape == (5, 1)
    largest = x.abs().amax(dim=1, keepdim=True)
    error = (rows.float() * scales - x).abs()
    assert bool((error <= x.abs() / 16 + largest / 2**17).all())


def test_weight_is_the_half_precision_one_in_eight_bits():
    packed, state = quantized_weight(32, 64)
    scale = find_weight_scale(packed, state)
    exact = dequantize_nf4(packed, state, torch.float32)
    rounded = dequantize_nf4_fp8(packed, state, scale.reciprocal(), transposed=False)
    assert rounded.float().abs().max().item() == 448.0
    torch.testing.assert_close(rounded.float() * scale, exact, rtol=0.07, atol=1e-5)
    turned = dequantize_nf4_fp8(packed, state, scale.reciprocal(), transposed=True)
    assert torch.equal(turned.float(), rounded.float().T)


def test_refuses_a_machine_without_eight_bit_products(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"compute: 'fp8' needs a GPU .* found no CUDA GPU"):
        check_fp8()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("transposed", [False, True])
def test_kernel_equals_the_plain_way(transposed):
    packed, state = quantized_weight(320, 192, "cuda")
    scale = find_weight_scale(packed, state)
    exact = dequantize_nf4(packed, state, torch.bfloat16).float()
    got = (
        dequantize_nf4_fp8(packed, state, scale.reciprocal(), transposed=transposed).float() * scale
    )
    torch.testing.assert_close(got.T if transposed else got, exact, rtol=0.07, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("rows", [128, 77])
def test_product_and_gradient_are_close_to_half_precision(rows):
    packed, state = quantized_weight(512, 256, "cuda")
    weight = dequantize_nf4(packed, state, torch.bfloat16).float()
    bias = torch.randn(512, device="cuda").bfloat16()
    x = torch.randn(1, rows, 256, device="cuda").bfloat16().requires_grad_()
    product = Fp8Linear.apply(x, packed, state, bias, find_weight_scale(packed, state))
    expected = x.float() @ weight.T + bias.float()
    gradient = torch.randn_like(product)
    (got,) = torch.autograd.grad(product, x, gradient)
    wanted = gradient.float() @ weight
    assert (product.float() - expected).norm() / expected.norm() < 0.05
    assert (got.float() - wanted).norm() / wanted.norm() < 0.05
