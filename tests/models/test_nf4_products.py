from __future__ import annotations

from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import nn

from tripletune.models import nf4_products
from tripletune.models.nf4_products import expand_for_many_tokens
from tripletune.models.quantization import quantize_linear_layers


class Network(nn.Module):
    """Two linear layers and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(64, 128)
        self.down = nn.Linear(128, 64, bias=False)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def build_network(dtype: torch.dtype = torch.float32) -> Network:
    torch.manual_seed(0)
    network = Network().to(dtype)
    quantize_linear_layers(network, dtype=dtype)
    return network.requires_grad_(False)


def multiply_plainly(network: Any, x: torch.Tensor) -> torch.Tensor:
    up, down = network.up.weight, network.down.weight
    inner = x @ dequantize_4bit(up.data, up.quant_state).T + network.up.bias
    product: torch.Tensor = torch.relu(inner) @ dequantize_4bit(down.data, down.quant_state).T
    return product


@pytest.mark.parametrize("shape", [(20, 64), (4, 5, 64)])
def test_expand_for_many_tokens_keeps_the_product(shape: tuple[int, ...]) -> None:
    network = build_network()
    assert expand_for_many_tokens(network, fewest_tokens=20) == 2
    x = torch.randn(*shape)
    torch.testing.assert_close(network(x), multiply_plainly(network, x))


def test_expand_for_many_tokens_leaves_few_tokens_to_bitsandbytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = build_network()
    expand_for_many_tokens(network, fewest_tokens=20)
    expanded: list[int] = []
    dequantize = nf4_products.dequantize_nf4
    monkeypatch.setattr(
        nf4_products,
        "dequantize_nf4",
        lambda packed, state, dtype: (expanded.append(1), dequantize(packed, state, dtype))[1],
    )
    network(torch.randn(19, 64))
    assert not expanded
    network(torch.randn(20, 64))
    assert len(expanded) == 2


def test_expand_for_many_tokens_lets_gradients_flow() -> None:
    network = build_network()
    expand_for_many_tokens(network, fewest_tokens=1)
    x = torch.randn(20, 64, requires_grad=True)
    network(x).sum().backward()
    expected = x.detach().requires_grad_()
    multiply_plainly(network, expected).sum().backward()
    torch.testing.assert_close(x.grad, expected.grad)


def test_expand_for_many_tokens_changes_layers_once_and_not_what_is_saved() -> None:
    network = build_network()
    names = list(network.state_dict())
    assert expand_for_many_tokens(network) == 2
    assert expand_for_many_tokens(network) == 0
    assert list(network.state_dict()) == names
    assert isinstance(network.up, bnb.nn.Linear4bit)
