"""What must hold for ChatGLM2 whatever its weights are; recorded numbers are in tests/parity."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import StaticCache

from tests.models.compiled import find_compiler, logits_and_gradients
from tripletune.errors import DataError
from tripletune.models.chatglm2 import (
    ChatGLM2Config,
    ChatGLM2ForConditionalGeneration,
    ChatGLM2Model,
)

IGNORED = -100
FIRST = [5, 6, 7, 8, 9, 10, 11]
SECOND = [20, 21, 22, 23]


def build_config(**changes) -> ChatGLM2Config:
    sizes = {
        "num_layers": 2,
        "padded_vocab_size": 97,
        "hidden_size": 32,
        "ffn_hidden_size": 24,
        "kv_channels": 8,
        "num_attention_heads": 6,
        "multi_query_group_num": 3,
        "seq_length": 128,
        "initializer_range": 0.2,
    }
    return ChatGLM2Config(**(sizes | changes))


def build_model(implementation: str = "sdpa", **changes) -> ChatGLM2ForConditionalGeneration:
    torch.manual_seed(0)
    config = build_config(**changes)
    config._attn_implementation = implementation
    model = ChatGLM2ForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def pad(rows: list[list[int]], side: str, value: int = 0) -> Tensor:
    width = max(map(len, rows))
    fill = {"left": lambda r: [value] * (width - len(r)) + r}
    fill["right"] = lambda r: r + [value] * (width - len(r))
    return torch.tensor([fill[side](row) for row in rows])


def labels_of(row: list[int]) -> list[int]:
    return [IGNORED, IGNORED, *row[2:]]


@torch.no_grad()
def expected_loss_and_logits(model) -> tuple[float, list[Tensor]]:
    logits = [model(torch.tensor([row])).logits[0] for row in (FIRST, SECOND)]
    predictions = torch.cat([rows[1:-1] for rows in logits])
    targets = torch.tensor(FIRST[2:] + SECOND[2:])
    return float(torch.nn.functional.cross_entropy(predictions, targets)), logits


@pytest.mark.slow
def test_module_can_be_imported_before_anything_else():
    command = [sys.executable, "-c", "import tripletune.models.chatglm2"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_neither_loss_nor_logits(implementation, side):
    loss, (first, second) = expected_loss_and_logits(build_model("eager"))
    mask = pad([[1] * len(FIRST), [1] * len(SECOND)], side)
    with torch.compiler.set_stance("force_eager"):
        output = build_model(implementation)(
            pad([FIRST, SECOND], side),
            attention_mask=mask,
            labels=pad([labels_of(FIRST), labels_of(SECOND)], side, IGNORED),
            logits_to_keep=0,
        )
    assert float(output.loss) == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(output.logits[0], first, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.logits[1][mask[1].bool()], second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [True, False])
def test_packing_changes_neither_loss_nor_logits(implementation, training):
    model = build_model(implementation)
    loss, (first, second) = expected_loss_and_logits(model)
    output = model.train(training)(
        torch.tensor([FIRST + SECOND]),
        position_ids=torch.tensor([[*range(len(FIRST)), *range(len(SECOND))]]),
        labels=torch.tensor([labels_of(FIRST) + labels_of(SECOND)]),
        logits_to_keep=0,
    )
    assert float(output.loss.detach()) == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(output.logits[0], torch.cat([first, second]), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@torch.no_grad()
def test_packing_with_flex_attention():
    loss, (first, second) = expected_loss_and_logits(build_model())
    with torch.compiler.set_stance("force_eager"):
        output = build_model("flex_attention")(
            torch.tensor([FIRST + SECOND]),
            position_ids=torch.tensor([[*range(len(FIRST)), *range(len(SECOND))]]),
            labels=torch.tensor([labels_of(FIRST) + labels_of(SECOND)]),
            logits_to_keep=0,
        )
    assert float(output.loss) == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(output.logits[0], torch.cat([first, second]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padded_rows_give_finite_gradients(implementation):
    model = build_model(implementation)
    model(
        pad([FIRST, SECOND], "left"),
        attention_mask=pad([[1] * len(FIRST), [1] * len(SECOND)], "left"),
        labels=pad([labels_of(FIRST), labels_of(SECOND)], "left", IGNORED),
    ).loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_loss_is_divided_by_the_given_count():
    model = build_model()
    arguments = {"input_ids": torch.tensor([FIRST]), "labels": torch.tensor([labels_of(FIRST)])}
    mean = model(**arguments).loss
    whole_step = model(**arguments, num_items_in_batch=torch.tensor(20)).loss
    torch.testing.assert_close(whole_step, mean * (len(FIRST) - 2) / 20)


def test_training_output_holds_no_logits():
    model = build_model()
    assert model(torch.tensor([FIRST]), labels=torch.tensor([FIRST])).logits is None


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_static_dynamic_and_no_cache_agree(implementation):
    model = build_model(implementation)
    ids = pad([FIRST, SECOND], "left")
    mask = pad([[1] * len(FIRST), [1] * len(SECOND)], "left")
    whole = model(ids, attention_mask=mask, use_cache=False)
    assert whole.past_key_values is None
    for cache in (None, StaticCache(config=model.config, max_cache_len=16)):
        seen = []
        for step in range(3, len(FIRST) + 1):
            start = 0 if step == 3 else step - 1
            output = model(
                ids[:, start:step],
                attention_mask=mask[:, :step],
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            seen.append(output.logits)
        logits = torch.cat(seen, dim=1)
        torch.testing.assert_close(logits[0], whole.logits[0], rtol=0, atol=1e-5)
        real = mask[1].bool()
        torch.testing.assert_close(logits[1][real], whole.logits[1][real], rtol=0, atol=1e-5)


def test_checkpointed_gradients_equal_plain_ones():
    gradients = []
    for checkpointing in (False, True):
        model = build_model().train()
        if checkpointing:
            # Renamed in transformers 5.2x; the older name warns there.
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
            assert model.transformer.encoder.layers[0].gradient_checkpointing
        model(torch.tensor([FIRST]), labels=torch.tensor([FIRST])).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1])


def test_block_compiles_without_graph_breaks():
    torch._dynamo.reset()
    model = build_model()
    block = model.transformer.encoder.layers[0]
    hidden_states = torch.randn(2, 5, 32)
    rotary = model.transformer.rotary_pos_emb(torch.arange(5)[None], torch.float32)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(hidden_states, rotary=rotary)[0], block(hidden_states, rotary=rotary)[0]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.skipif(not find_compiler(), reason="torch.compile needs a C++ compiler")
def test_compiled_model_equals_eager():
    model = build_model(num_layers=1).train()
    ids, position_ids = torch.tensor([FIRST]), torch.arange(len(FIRST))[None]
    expected = logits_and_gradients(model, model, ids, position_ids)
    torch._dynamo.reset()
    actual = logits_and_gradients(model, torch.compile(model), ids, position_ids)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.04), (torch.float16, 0.006)])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_half_precision_stays_near_fp32(dtype, bound, implementation):
    # Relative to the largest logit; bf16 has 8 bits of mantissa, fp16 has 11.
    model = build_model(implementation)
    expected = model(torch.tensor([FIRST])).logits
    output = model.to(dtype)(torch.tensor([FIRST])).logits
    assert output.dtype == dtype
    assert float((output - expected).abs().max() / expected.abs().max()) < bound


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_explicit_masks_of_both_kinds_agree_with_the_built_one(implementation):
    model = build_model(implementation)
    ids = torch.tensor([FIRST])
    allowed = torch.ones(1, 1, len(FIRST), len(FIRST), dtype=torch.bool).tril()
    additive = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    expected = model(ids).logits
    for mask in (allowed, additive):
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, expected)


def test_hidden_states_and_probabilities_are_returned_on_request():
    model = build_model("eager")
    output = model(torch.tensor([FIRST]), output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in output.hidden_states] == [(1, 7, 32)] * 3
    assert [tuple(p.shape) for p in output.attentions] == [(1, 6, 7, 7)] * 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(1, 6, 7))


def test_plain_tuple_on_request():
    model = build_model()
    ids = torch.tensor([FIRST])
    torch.testing.assert_close(model(ids, return_dict=False)[0], model(ids).logits)


def test_logits_to_keep_takes_a_number_or_indices():
    model = build_model()
    ids = torch.tensor([FIRST])
    expected = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, expected[:, -2:])
    chosen = torch.tensor([0, 3])
    torch.testing.assert_close(model(ids, logits_to_keep=chosen).logits, expected[:, chosen])


def test_inputs_embeds_stand_for_ids():
    model = build_model()
    ids = torch.tensor([FIRST])
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embeds).logits, model(ids).logits)


def test_ids_and_embeds_together_are_refused():
    model = build_model()
    with pytest.raises(DataError, match="exactly one"):
        model(torch.tensor([FIRST]), inputs_embeds=torch.zeros(1, 7, 32))
    with pytest.raises(DataError, match="exactly one"):
        model()


def test_head_and_embeddings_can_be_replaced():
    model = build_model()
    assert model.get_output_embeddings() is model.transformer.output_layer
    model.resize_token_embeddings(100)
    assert model(torch.tensor([[99]])).logits.shape == (1, 1, 100)
    assert model.config.padded_vocab_size == 100


def test_base_model_alone_returns_normed_hidden_states():
    model = build_model()
    assert type(model.base_model) is ChatGLM2Model
    output = model.base_model(torch.tensor([FIRST]))
    logits = model.transformer.output_layer(output.last_hidden_state)
    torch.testing.assert_close(logits, model(torch.tensor([FIRST])).logits)


def test_saved_and_loaded_model_is_the_same(tmp_path):
    model = build_model()
    model.save_pretrained(tmp_path)
    again, info = ChatGLM2ForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(dict(again.state_dict()), dict(model.state_dict()))


def test_folder_without_stored_frequencies_loads(tmp_path):
    model = build_model()
    state = {name: t for name, t in model.state_dict().items() if "inv_freq" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    again = ChatGLM2ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(
        again.transformer.rotary_pos_emb.inv_freq, model.transformer.rotary_pos_emb.inv_freq
    )


@torch.no_grad()
def test_quantised_model_equals_its_dequantised_weights(tmp_path):
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit
    from transformers import BitsAndBytesConfig

    plain = build_model(hidden_size=64)
    plain.save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    quantised = ChatGLM2ForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=settings, device_map={"": "cpu"}
    )
    layers = {n: m for n, m in quantised.named_modules() if isinstance(m, Linear4bit)}
    assert len(layers) == 2 * 4  # the head stays as it is
    for name, layer in layers.items():
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.get_submodule(name).weight.copy_(weight)
    with torch.enable_grad():
        actual = quantised(torch.tensor([FIRST])).logits.detach()
    torch.testing.assert_close(actual, plain(torch.tensor([FIRST])).logits)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_fresh_lora_changes_nothing_and_alone_has_gradients():
    from peft import LoraConfig, get_peft_model

    model = build_model()
    ids = torch.tensor([FIRST])
    expected = model(ids).logits.detach()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query_key_value"]))
    torch.testing.assert_close(adapted(ids).logits, expected)
    adapted(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, p in adapted.named_parameters() if p.grad is not None}
    assert len(trained) == 2 * 2
    assert all("query_key_value.lora_" in name for name in trained)
