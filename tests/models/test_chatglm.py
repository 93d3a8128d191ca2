"""Laws of the ChatGLM-6B network: what must not change its outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from tests.models.compiled import find_compiler, logits_and_gradients
from tripletune.models.chatglm import ChatGLMForConditionalGeneration, build_position_ids
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


def make_model(implementation: str = "sdpa", **changes) -> ChatGLMForConditionalGeneration:
    torch.manual_seed(0)
    config = ChatGLMConfig(**(CONFIG | changes))
    config._attn_implementation = implementation
    return ChatGLMForConditionalGeneration(config)


def gradients_of(model):
    model.zero_grad()
    model(IDS, labels=LABELS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


OTHER = torch.tensor([[7, 8, 31, 34, 12, 35]])
OTHER_LABELS = torch.tensor([[-100] * 4 + [12, 35]])


@torch.no_grad()
def expected_loss_and_logits(model) -> tuple[float, list[Tensor]]:
    """Of both examples, each alone; the loss is the mean over the tokens of both."""
    logits = [model(ids).logits[0] for ids in (IDS, OTHER)]
    predictions = torch.cat([logits[0][4:-1], logits[1][3:-1]])
    targets = torch.cat([LABELS[0, 5:], OTHER_LABELS[0, 4:]])
    return float(torch.nn.functional.cross_entropy(predictions, targets)), logits


def pad(side: str, first: Tensor, second: Tensor, value: int) -> Tensor:
    fill = torch.full((1, first.shape[1] - second.shape[1]), value)
    row = torch.cat([fill, second] if side == "left" else [second, fill], dim=1)
    return torch.cat([first, row])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_neither_loss_nor_logits(implementation, side):
    loss, (first, second) = expected_loss_and_logits(make_model("eager").eval())
    mask = pad(side, torch.ones_like(IDS), torch.ones_like(OTHER), 0)
    with torch.compiler.set_stance("force_eager"):
        output = make_model(implementation).eval()(
            pad(side, IDS, OTHER, 3),
            attention_mask=mask,
            labels=pad(side, LABELS, OTHER_LABELS, -100),
            logits_to_keep=0,
        )
    assert float(output.loss) == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(output.logits[0], first, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.logits[1][mask[1].bool()], second, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@torch.no_grad()
def test_packing_changes_neither_loss_nor_logits(implementation):
    model = make_model(implementation).eval()
    loss, logits = expected_loss_and_logits(make_model("eager").eval())
    positions = [build_position_ids(ids, model.config) for ids in (IDS, OTHER)]
    with torch.compiler.set_stance("force_eager"):
        output = model(
            torch.cat([IDS, OTHER], dim=1),
            position_ids=torch.cat(positions, dim=2),
            labels=torch.cat([LABELS, OTHER_LABELS], dim=1),
            logits_to_keep=0,
        )
    assert float(output.loss) == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(output.logits[0], torch.cat(logits), rtol=0, atol=1e-5)


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.skipif(not find_compiler(), reason="torch.compile needs a C++ compiler")
def test_compiled_model_equals_eager():
    model = make_model(num_layers=1).train()
    position_ids = build_position_ids(IDS, model.config)
    expected = logits_and_gradients(model, model, IDS, position_ids)
    torch._dynamo.reset()
    actual = logits_and_gradients(model, torch.compile(model), IDS, position_ids)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.04), (torch.float16, 0.006)])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_half_precision_stays_near_fp32(dtype, bound, implementation):
    # Relative to the largest logit; bf16 has 8 bits of mantissa, fp16 has 11.
    model = make_model(implementation).eval()
    expected = model(IDS).logits
    output = model.to(dtype)(IDS).logits
    assert output.dtype == dtype
    assert float((output - expected).abs().max() / expected.abs().max()) < bound


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


@torch.no_grad()
def test_probabilities_are_returned_on_request():
    output = make_model("eager").eval()(IDS, output_attentions=True)
    assert [tuple(layer.shape) for layer in output.attentions] == [(1, 2, 9, 9)] * 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(1, 2, 9))
    assert make_model("eager").eval()(IDS).attentions is None


def test_input_embeddings_can_be_replaced():
    model = make_model()
    fresh = torch.nn.Embedding(40, 64)
    model.set_input_embeddings(fresh)
    assert model.get_input_embeddings() is fresh
