"""ChatGLM-6B against tensors recorded from the official code (tiny random network, fp32)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel

from tripletune.errors import DataError
from tripletune.models.chatglm import ChatGLMForConditionalGeneration, build_position_ids
from tripletune.models.configuration_chatglm import ChatGLMConfig

IMPLEMENTATIONS = ["eager", "sdpa", "flex_attention"]
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture(autouse=True)
def run_flex_attention_uncompiled() -> Iterator[None]:
    """torch's C++ code for flex attention does not compile everywhere; its definition is tested."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="module")
def folder(shared_dir: Path) -> Path:
    return shared_dir / "references" / "chatglm-6b"


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "references.safetensors")


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "references.json").read_text(encoding="utf-8"))


def load(folder: Path, implementation: str = "eager") -> ChatGLMForConditionalGeneration:
    return AutoModel.from_pretrained(folder, attn_implementation=implementation).eval()


def record_positions(model: ChatGLMForConditionalGeneration) -> list[Tensor]:
    """The list that the position ids of every later call are added to."""
    seen: list[Tensor] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    return seen


def assert_close(actual: Tensor, expected: Tensor) -> None:
    bound = 1e-4 * max(1.0, float(expected.abs().max()))
    assert actual.shape == expected.shape
    assert float((actual.detach() - expected).abs().max()) <= bound


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_single_hidden_states_and_logits(folder, tensors, implementation):
    output = load(folder, implementation)(tensors["single.input_ids"], output_hidden_states=True)
    assert_close(torch.stack(output.hidden_states), tensors["single.hidden_states"])
    assert_close(output.logits, tensors["single.logits"])


def test_single_attention_probabilities(folder, tensors):
    model = load(folder)
    recorded = []
    attention = model.transformer.layers[1].attention
    attention.register_forward_hook(lambda module, args, output: recorded.append(output[1]))
    model(tensors["single.input_ids"])
    assert_close(recorded[0][0], tensors["single.attention_probs_layer1"])


def test_single_positions_are_built_exactly(folder, tensors):
    model = load(folder)
    positions = build_position_ids(tensors["single.input_ids"], model.config)
    assert torch.equal(positions, tensors["single.position_ids"])


def test_batch_positions_are_built_exactly(folder, tensors):
    config = load(folder).config
    for mask in (tensors["batch.attention_mask"], tensors["batch.real"].long()):
        positions = build_position_ids(tensors["batch.input_ids"], config, attention_mask=mask)
        assert torch.equal(positions, tensors["batch.position_ids"])


@pytest.mark.parametrize("case", ["single", "batch"])
@torch.no_grad()
def test_masks_are_built_exactly(folder, tensors, case):
    model = load(folder, "sdpa")
    seen = []
    model.transformer.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    real = tensors["batch.real"] if case == "batch" else None
    model(tensors[f"{case}.input_ids"], attention_mask=None if real is None else real.long())
    expected = ~tensors[f"{case}.attention_mask"]
    rows = slice(None) if real is None else real  # what a padding query sees does not matter
    assert torch.equal(seen[0][:, 0][rows], expected[:, 0][rows])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_single_accepts_the_official_mask(folder, tensors, implementation):
    output = load(folder, implementation)(
        tensors["single.input_ids"],
        attention_mask=tensors["single.attention_mask"],
        position_ids=tensors["single.position_ids"],
    )
    assert_close(output.logits, tensors["single.logits"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("give_positions", [True, False], ids=["positions", "no-positions"])
@torch.no_grad()
def test_batch_logits_at_real_tokens(folder, tensors, implementation, give_positions):
    output = load(folder, implementation)(
        tensors["batch.input_ids"],
        attention_mask=tensors["batch.attention_mask"],
        position_ids=tensors["batch.position_ids"] if give_positions else None,
    )
    real = tensors["batch.real"]
    assert_close(output.logits[real], tensors["batch.logits"][real])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_batch_with_two_dimensional_mask(folder, tensors, implementation):
    real = tensors["batch.real"]
    output = load(folder, implementation)(tensors["batch.input_ids"], attention_mask=real.long())
    assert_close(output.logits[real], tensors["batch.logits"][real])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_batch_without_a_mask_attends_to_pads(folder, tensors, implementation):
    output = load(folder, implementation)(tensors["batch.input_ids"], logits_to_keep=1)
    assert_close(output.logits[:, 0], tensors["batch_ids_only.last_logits"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["mask_only", "mask_at_end", "gmask_in_middle", "both"])
@torch.no_grad()
def test_mask_token_variants(folder, tensors, case, implementation):
    model = load(folder, implementation)
    input_ids = tensors[f"{case}.input_ids"]
    positions = build_position_ids(input_ids, model.config)
    assert torch.equal(positions, tensors[f"{case}.position_ids_model"])
    assert_close(model(input_ids).logits[:, -7:], tensors[f"{case}.logits"])
    given = model(input_ids, position_ids=tensors[f"{case}.position_ids_tokenizer"]).logits
    assert_close(given[:, -7:], tensors[f"{case}.logits_tokenizer_positions"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["mask_only", "mask_at_end", "gmask_in_middle", "both"])
def test_mask_token_variants_generate(folder, tensors, case, implementation):
    model = load(folder, implementation)
    expected = tensors[f"{case}.gen_output_ids"]
    prompt = tensors[f"{case}.input_ids"][:, : expected.shape[1] - 8]
    output = model.generate(prompt, max_new_tokens=8, do_sample=False)
    assert torch.equal(output, expected)


def test_ids_without_start_token_are_refused(folder, tensors):
    with pytest.raises(DataError, match="row 0 holds no <sop>"):
        load(folder)(tensors["single.input_ids"][:, :5])


def test_ids_without_mask_token_are_refused(folder):
    model = load(folder)
    with pytest.raises(DataError, match=r"row 0 holds no \[gMASK\] or \[MASK\]"):
        model(torch.tensor([[20, 21, model.config.bos_token_id]]))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("case", "inputs"), [("train_left", "batch"), ("train_single", "single"), ("train_right", None)]
)
def test_training_loss_and_gradients(folder, tensors, facts, implementation, case, inputs):
    model = load(folder, implementation)
    model.requires_grad_(True)
    arguments = {"input_ids": tensors[f"{inputs or case}.input_ids"]}
    if inputs == "batch":
        arguments["attention_mask"] = tensors["batch.attention_mask"]
        arguments["position_ids"] = tensors["batch.position_ids"]
    loss = model(**arguments, labels=tensors[f"{case}.labels"]).loss
    expected = tensors[f"{case}.loss"]
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    assert norms == pytest.approx(facts["grad_norms"][case], rel=1e-4, abs=1e-7)
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(facts["grad_norm_total"][case], rel=1e-4)
    recorded = {
        name.removeprefix(f"{case}.grad."): gradient
        for name, gradient in tensors.items()
        if name.startswith(f"{case}.grad.")
    }
    assert len(recorded) == (3 if case == "train_left" else 2)
    for name, full in recorded.items():
        assert float((gradients[name] - full).abs().max()) <= 1e-4 * float(full.abs().max())


@pytest.mark.parametrize(
    ("case", "inputs"), [("train_left", "batch"), ("train_single", "single"), ("train_right", None)]
)
@torch.no_grad()
def test_training_loss_with_flex_attention(folder, tensors, case, inputs):
    """PyTorch has no backward pass of flex attention on the CPU."""
    padded = {"attention_mask": tensors["batch.attention_mask"]} if inputs == "batch" else {}
    loss = load(folder, "flex_attention")(
        tensors[f"{inputs or case}.input_ids"], labels=tensors[f"{case}.labels"], **padded
    ).loss
    assert float(loss) == pytest.approx(float(tensors[f"{case}.loss"]), rel=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gradients_of_head_and_embeddings_apart(folder, tensors, facts, implementation):
    model = load(folder, implementation)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model(
        tensors["batch.input_ids"],
        attention_mask=tensors["batch.attention_mask"],
        position_ids=tensors["batch.position_ids"],
        labels=tensors["train_left.labels"],
    ).loss.backward()
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters()}
    expected = facts["grad_norms"]["train_left_untied"]
    assert norms == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_generates_single(folder, tensors, implementation):
    model = load(folder, implementation)
    seen = record_positions(model)
    output = model.generate(tensors["gen_single.input_ids"], max_new_tokens=24, do_sample=False)
    assert torch.equal(output, tensors["gen_single.output_ids"])
    newest = torch.cat([positions[..., -1:] for positions in seen], dim=-1)
    assert torch.equal(newest, tensors["inc_single.step_position_ids"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("cache", ["dynamic", "static", None])
def test_generates_batch(folder, tensors, implementation, cache):
    settings = {"use_cache": False} if cache is None else {"cache_implementation": cache}
    model = load(folder, implementation)
    seen = record_positions(model)
    output = model.generate(
        tensors["gen_batch.input_ids"],
        attention_mask=tensors["gen_batch.attention_mask"],
        position_ids=tensors["gen_batch.position_ids"],
        max_new_tokens=24,
        do_sample=False,
        disable_compile=True,
        **settings,
    )
    assert torch.equal(output, tensors["gen_batch.output_ids"])
    newest = torch.cat([positions[..., -1:] for positions in seen], dim=-1)
    assert torch.equal(newest, tensors["inc_batch.step_position_ids"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_generates_batch_with_other_end_token(folder, tensors, facts, implementation):
    output = load(folder, implementation).generate(
        tensors["gen_batch.input_ids"],
        attention_mask=tensors["gen_batch.attention_mask"],
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=facts["gen_batch_eos"]["eos_token_id"],
    )
    assert torch.equal(output, tensors["gen_batch_eos.output_ids"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["single", "batch"])
@torch.no_grad()
def test_increments(folder, tensors, implementation, case):
    model = load(folder, implementation)
    input_ids = tensors[f"gen_{case}.input_ids"]
    output_ids = tensors[f"gen_{case}.output_ids"]
    real = None
    if case == "batch":
        real = (~tensors["gen_batch.attention_mask"][:, 0, -1]).long()
    expected = tensors[f"inc_{case}.step_logits"]
    positions = tensors[f"inc_{case}.step_position_ids"]
    cache = None
    for step in range(24):
        length = input_ids.shape[1] + step
        ids = input_ids if step == 0 else output_ids[:, length - 1 : length]
        mask = None
        if real is not None:
            mask = torch.cat([real, real.new_ones(len(real), step)], dim=1)
        output = model(
            ids,
            attention_mask=mask,
            position_ids=None if step == 0 else positions[:, :, step : step + 1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        if step < expected.shape[1]:
            assert_close(output.logits[:, 0], expected[:, step])
    keys = cache.layers[0].keys.permute(2, 0, 1, 3)
    values = cache.layers[0].values.permute(2, 0, 1, 3)
    seen = tensors[f"inc_{case}.past_key_layer0"]
    if real is None:
        assert_close(keys, seen)
        assert_close(values, tensors["inc_single.past_value_layer0"])
    else:
        kept = torch.cat([real, real.new_ones(len(real), 23)], dim=1).bool().T
        assert_close(keys[kept], seen[kept])
        assert_close(values[kept], tensors["inc_batch.past_value_layer0"][kept])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_sharded_bin_equals_safetensors(folder, tensors, tmp_path, implementation):
    for source in folder.glob("pytorch_model*"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    model, info = AutoModel.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True, attn_implementation=implementation
    )
    assert {name: list(found) for name, found in info.items()} == {
        "missing_keys": [],
        "unexpected_keys": [],
        "mismatched_keys": [],
        "error_msgs": [],
    }
    expected = load(folder).state_dict()
    weights = model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert_close(model.eval()(tensors["single.input_ids"]).logits, tensors["single.logits"])


def test_every_weight_is_loaded_and_the_dropped_ones_are_named(folder):
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert {name: list(found) for name, found in info.items()} == {
        "missing_keys": [],
        "unexpected_keys": [],
        "mismatched_keys": [],
        "error_msgs": [],
    }
    stored = set(load_file(folder / "model.safetensors"))
    layers = range(model.config.num_layers)
    dropped = {f"transformer.layers.{n}.attention.rotary_emb.inv_freq" for n in layers}
    assert stored - set(model.state_dict()) == dropped


def test_full_size_names_shapes_and_counts(folder, tmp_path):
    facts = json.loads((folder / "full_size_state_dict.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(facts["config"]), encoding="utf-8")
    config = AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    model.tie_weights()
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    buffers = set(facts["buffers"])
    assert ours == {k: v for k, v in facts["state_dict"].items() if k not in buffers}
    assert sum(p.numel() for p in model.parameters()) == facts["num_parameters"]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_full_size_lora_counts(folder):
    from peft import LoraConfig, get_peft_model

    facts = json.loads((folder / "full_size_state_dict.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(ChatGLMConfig(**facts["config"]))
        model.tie_weights()
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules=["query_key_value"]))
    assert adapted.get_nb_trainable_parameters() == (3_670_016, 6_176_956_416)


def test_stored_head_never_replaces_the_embeddings(folder, tensors, tmp_path):
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1.0
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    model = load(tmp_path)
    assert model.lm_head.weight is model.transformer.word_embeddings.weight
    assert_close(model(tensors["single.input_ids"]).logits, tensors["single.logits"])
