from __future__ import annotations

import pytest
import torch

from tripletune.models.low_rank import find_low_rank_gradients

WIDE = 4096


def by_autograd(gradient: torch.Tensor, inner: torch.Tensor, up: torch.Tensor) -> tuple:
    inputs = [x.detach().double().requires_grad_() for x in (inner, up)]
    return torch.autograd.grad(inputs[0] @ inputs[1].T, inputs, gradient.double())


def test_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    inputs = torch.randn(2, 5, 12), torch.randn(2, 5, 4), torch.randn(12, 4)
    for mine, theirs in zip(find_low_rank_gradients(*inputs), by_autograd(*inputs), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("rank", [4, 8, 24])
@pytest.mark.parametrize(("rows", "columns"), [(1, WIDE), (700, WIDE), (1030, WIDE + 200)])
def test_kernel_gives_the_gradients_of_autograd(rows, columns, rank):
    torch.manual_seed(0)
    inputs = [
        torch.randn(shape, device="cuda").bfloat16()
        for shape in ((2, rows, columns), (2, rows, rank), (columns, rank))
    ]
    for mine, theirs in zip(find_low_rank_gradients(*inputs), by_autograd(*inputs), strict=True):
        assert mine.shape == theirs.shape
        assert mine.dtype == torch.bfloat16
        assert ((mine.double() - theirs).norm() / theirs.norm()).item() < 0.004


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_kernel_gives_the_same_bits_every_time():
    torch.manual_seed(0)
    inputs = [
        torch.randn(shape, device="cuda").bfloat16()
        for shape in ((1, 3000, WIDE), (1, 3000, 8), (WIDE, 8))
    ]
    first, second = (find_low_rank_gradients(*inputs) for _ in range(2))
    for mine, again in zip(first, second, strict=True):
        assert torch.equal(mine, again)
