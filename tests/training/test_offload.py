from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.training.test_fast_layers import make_model
from tripletune.training.fast_layers import speed_up_linear_layers
from tripletune.training.offload import ActivationStore, find_weights, offload_activations


class Squares(nn.Module):
    """Saves one tensor a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(12):
            x = (x * x).tanh() + x
        return x.sum()


def gradient_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.forward(x), x)
    return gradient


def test_tensors_on_the_cpu_stay_where_they_are():
    store = ActivationStore(least_bytes=0)
    tensor = torch.ones(3)
    assert store.pack(tensor) is tensor
    assert store.unpack(tensor) is tensor


def test_weights_are_known_by_where_they_lie():
    model = make_model()
    before = find_weights(model)
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=True)
    after = find_weights(model)
    packed = [m for m in model.modules() if type(m).__name__ == "Linear4bit"]
    assert {module.weight.data.untyped_storage().data_ptr() for module in packed} <= before
    assert before < after
    assert len(after - before) == len(packed) == 8


def test_gradients_are_the_same():
    x = torch.linspace(-1, 1, 2**12)
    expected = gradient_of(Squares(), x)
    model = Squares()
    offload_activations(model)
    assert torch.equal(gradient_of(model, x), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_weights_stay_where_they_are():
    weight, other = torch.ones(2, 2**10, device="cuda")
    store = ActivationStore(0, frozenset([torch.ones(1).data_ptr()]))
    assert isinstance(store.pack(weight[:8]), int)
    store = ActivationStore(0, frozenset([weight.untyped_storage().data_ptr()]))
    assert store.pack(other) is other, "of the same memory"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_gradients_are_the_same_and_memory_is_less():
    x = torch.linspace(-1, 1, 2**24, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    expected = gradient_of(Squares(), x)
    plain_peak = torch.cuda.max_memory_allocated()
    model = Squares()
    offload_activations(model)
    for _ in range(3):
        torch.cuda.reset_peak_memory_stats()
        assert torch.equal(gradient_of(model, x), expected)
    assert torch.cuda.max_memory_allocated() < plain_peak
