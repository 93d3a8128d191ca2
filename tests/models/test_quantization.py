from __future__ import annotations

import pytest
import torch

from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.quantization import quantize_linear_layers, quantized_on


def make_model():
    torch.manual_seed(0)
    config = ChatGLMConfig(
        vocab_size=40, hidden_size=64, num_layers=2, num_attention_heads=2, inner_hidden_size=128,
        mask_token_id=30, gmask_token_id=31, bos_token_id=34, eos_token_id=35,
    )  # fmt: skip
    return ChatGLMForConditionalGeneration(config).eval()


def test_every_linear_layer_but_the_head_becomes_nf4():
    model = make_model()
    assert quantize_linear_layers(model, dtype=torch.float32) == 8
    kinds = {
        name: type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert kinds.pop("lm_head") == "Linear"
    assert set(kinds.values()) == {"Linear4bit"}
    assert len(kinds) == 8


def test_quantised_layer_computes_with_its_own_dequantised_weight():
    from bitsandbytes.functional import dequantize_4bit

    model = make_model()
    quantize_linear_layers(model, dtype=torch.float32)
    layer = model.transformer.layers[0].mlp.dense_h_to_4h.train()
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    states = torch.randn(3, 64, requires_grad=True)
    torch.testing.assert_close(
        layer(states), torch.nn.functional.linear(states, weight, layer.bias)
    )


def test_biases_stay_as_they_were():
    model = make_model()
    before = {n: p.clone() for n, p in model.named_parameters() if n.endswith("dense.bias")}
    quantize_linear_layers(model, dtype=torch.float32)
    after = dict(model.named_parameters())
    assert before
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_weights_in_host_memory_are_quantised_on_the_gpu():
    import bitsandbytes as bnb

    def quantise(device):
        weight = bnb.nn.Params4bit(
            source, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        return weight.to(device)

    source = torch.randn(128, 256, generator=torch.Generator().manual_seed(0))
    expected = quantise("cuda")
    with quantized_on(torch.device("cuda")):
        weight = quantise("cpu")
    assert weight.device.type == weight.quant_state.absmax.device.type == "cpu"
    assert torch.equal(weight.data, expected.data.cpu())
    for name in ("absmax", "offset", "code"):
        value = getattr(expected.quant_state, name).cpu()
        assert torch.equal(getattr(weight.quant_state, name), value), name


def test_weights_are_quantised_where_they_lie_again_afterwards(monkeypatch):
    import bitsandbytes as bnb

    devices = []

    def quantise(weight, device):
        devices.append(torch.device(device).type)
        weight.data, weight.quant_state = weight.data, bnb.functional.QuantState(torch.ones(1))
        weight.quant_state.code = torch.ones(1)
        return weight

    monkeypatch.setattr(bnb.nn.Params4bit, "_quantize", quantise)
    with quantized_on(torch.device("meta")):
        moved = bnb.nn.Params4bit(torch.ones(2, 2), requires_grad=False).to("cpu")
    bnb.nn.Params4bit(torch.ones(2, 2), requires_grad=False).to("cpu")
    assert devices == ["meta", "cpu"]
    assert moved.device.type == "cpu"
