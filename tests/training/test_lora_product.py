from __future__ import annotations

import pytest
import torch

from tripletune.training.lora_product import add_low_rank, add_scaled_product, hashed_dropout


def test_dropout_zeroes_its_share_and_scales_the_rest():
    torch.manual_seed(0)
    dropped = hashed_dropout(torch.ones(1000, 1000), 0.1)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.002)


def test_dropout_mask_has_no_pattern_along_rows_or_columns():
    torch.manual_seed(1)
    kept = (hashed_dropout(torch.ones(512, 512), 0.5) > 0).float()
    assert kept.mean(0).std().item() == pytest.approx(0.5 / 512**0.5, rel=0.2)
    assert kept.mean(1).std().item() == pytest.approx(0.5 / 512**0.5, rel=0.2)
    neighbours = torch.corrcoef(torch.stack([kept[:, :-1].flatten(), kept[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 0.01


def test_dropout_follows_the_random_state():
    x = torch.randn(64, 64)
    torch.manual_seed(5)
    first, second = hashed_dropout(x, 0.3), hashed_dropout(x, 0.3)
    torch.manual_seed(5)
    assert torch.equal(hashed_dropout(x, 0.3), first)
    assert not torch.equal(first, second)


def test_dropout_passes_the_gradient_where_it_kept():
    x = torch.randn(16, 16, requires_grad=True)
    dropped = hashed_dropout(x, 0.4)
    dropped.sum().backward()
    assert torch.equal(x.grad, torch.where(dropped == 0, 0.0, 1 / 0.6))


def test_no_dropout_gives_the_input_back():
    x = torch.randn(3)
    assert hashed_dropout(x, 0.0) is x


@pytest.mark.parametrize("rank", [4, 32])
def test_low_rank_sum_equals_the_product(rank):
    torch.manual_seed(0)
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 12), (2, 5, rank), (12, rank))
    ]
    expected = inputs[0] + inputs[1] @ inputs[2].T
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, gradient)
    summed = add_low_rank(*inputs)
    torch.testing.assert_close(summed, expected)
    for mine, theirs in zip(torch.autograd.grad(summed, inputs, gradient), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_scaled_product_equals_its_formula():
    torch.manual_seed(0)
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 5, 12), (2, 5, 4), (12, 4))
    ]
    expected = inputs[0] + 0.3 * (inputs[1] @ inputs[2].T)
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, gradient)
    added = add_scaled_product(*inputs, 0.3)
    torch.testing.assert_close(added, expected)
    for mine, theirs in zip(torch.autograd.grad(added, inputs, gradient), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("columns", "rank"), [(12288, 8), (4200, 33), (96, 4)])
def test_low_rank_kernel_equals_the_product(columns, rank):
    torch.manual_seed(0)
    inputs = [
        torch.randn(shape, device="cuda").bfloat16().requires_grad_()
        for shape in ((1, 130, columns), (1, 130, rank), (columns, rank))
    ]
    wide = [x.detach().float().requires_grad_() for x in inputs]
    expected = wide[0] + wide[1] @ wide[2].T
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, wide, gradient)
    summed = add_low_rank(*inputs)
    got = torch.autograd.grad(summed, inputs, gradient.bfloat16())
    for mine, theirs in zip((summed, *got), (expected, *wanted), strict=True):
        assert (mine.float() - theirs).norm() / theirs.norm() < 0.01
