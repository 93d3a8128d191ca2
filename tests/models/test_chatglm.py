"""Laws of the ChatGLM-6B network: what must not change its outputs."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig

CONFIG = {
    "vocab_size": 40,
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 2,
    "inner_hidden_size": 128,
    "mask_token_id": 30,
    "gmask_token_id": 31,
    "bos_token_id": 34,
    "eos_token_id": 35,
}
IDS = torch.tensor([[5, 6, 7, 31, 34, 9, 10, 11, 35]])
LABELS = torch.tensor([[-100] * 5 + [9, 10, 11, 35]])


def make_model() -> ChatGLMForConditionalGeneration:
    torch.manual_seed(0)
    return ChatGLMForConditionalGeneration(ChatGLMConfig(**CONFIG))


def gradients_of(model):
    model.zero_grad()
    model(IDS, labels=LABELS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_leaves_real_tokens_as_they_are(side):
    model = make_model().eval()
    expected = model(IDS).logits
    pads = torch.full((1, 3), 3)
    parts = [pads, IDS] if side == "left" else [IDS, pads]
    mask = torch.cat([torch.zeros_like(p) if p is pads else torch.ones_like(p) for p in parts], 1)
    logits = model(torch.cat(parts, dim=1), attention_mask=mask).logits
    torch.testing.assert_close(logits[mask.bool()], expected[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_cache_gives_the_logits_of_the_whole_row(kind):
    model = make_model().eval()
    expected = model(IDS).logits
    cache = (
        DynamicCache(config=model.config)
        if kind == "dynamic"
        else StaticCache(config=model.config, max_cache_len=16)
    )
    prompt = model(IDS[:, :5], past_key_values=cache, use_cache=True).logits
    steps = [prompt]
    for place in range(5, 9):
        positions = torch.tensor([[[3], [place - 3]]])
        steps.append(
            model(
                IDS[:, place : place + 1],
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits
        )
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, rtol=1e-4, atol=1e-4)


def test_checkpointed_gradients_are_the_plain_ones():
    model = make_model().train()
    plain = gradients_of(model)
    # The name transformers has for it since 5.20, or the one before.
    enable = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{enable}_checkpointing_enable")({"use_reentrant": False})
    checkpointed = gradients_of(model)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in checkpointed.items():
        torch.testing.assert_close(gradient, plain[name], msg=name)


@torch.no_grad()
def test_bf16_stays_close():
    model = make_model().eval()
    expected = model(IDS).logits
    rounded = model.to(torch.bfloat16)(IDS).logits.float()
    # Three significant digits in each of about a dozen products a layer.
    assert float((rounded - expected).abs().max()) <= 0.04 * float(expected.abs().max())


def test_a_block_compiles_without_a_graph_break():
    model = make_model().eval()
    block = model.transformer.layers[0]
    explained = torch._dynamo.explain(block.forward)(
        torch.randn(1, 9, 64),
        rotary=tuple(torch.randn(2, 1, 9, 1, 2, 2, 8).unbind(0)),
        attention_mask=None,
        past_key_values=None,
    )
    assert explained.graph_break_count == 0


def test_input_embeddings_can_be_replaced():
    model = make_model()
    fresh = torch.nn.Embedding(40, 64)
    model.set_input_embeddings(fresh)
    assert model.get_input_embeddings() is fresh
