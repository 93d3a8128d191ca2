from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tripletune.models.cross_entropy import has_cross_entropy_kernel, replace_by_gradient

IGNORED = -100


def test_there_is_no_kernel_for_the_cpu():
    assert not has_cross_entropy_kernel(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("columns", [11, 4096, 130_528, 262_144])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)],
)
def test_losses_and_gradients_are_those_of_torch(columns, dtype, tolerance):
    torch.manual_seed(0)
    logits = (4 * torch.randn(37, columns, device="cuda")).to(dtype)
    targets = torch.randint(0, columns, (37,), device="cuda")
    targets[::5] = IGNORED
    wide = logits.float().requires_grad_()
    expected = F.cross_entropy(wide, targets, ignore_index=IGNORED, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), wide)
    losses = replace_by_gradient(logits, targets, ignored=IGNORED)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.float(), gradient, rtol=tolerance, atol=1e-7)
    assert not logits[::5].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_very_large_and_infinite_logits_give_finite_gradients():
    logits = torch.tensor([[3e4, -3e4, float("-inf"), 2e4]], device="cuda")
    losses = replace_by_gradient(logits, torch.tensor([3], device="cuda"), ignored=IGNORED)
    assert losses.tolist() == [1e4]
    assert logits.tolist() == [[1.0, 0.0, 0.0, -1.0]]
