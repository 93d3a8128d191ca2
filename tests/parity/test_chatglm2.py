"""ChatGLM2-6B against tensors recorded from the official code (tiny random network, fp32).

The recorded ChatGLM3 code gives bit-identical numbers, so these are its references too.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from tripletune.models.chatglm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration

IMPLEMENTATIONS = ["eager", "sdpa", "flex_attention"]
# PyTorch has no backward pass of flex attention on the CPU.
IMPLEMENTATIONS_WITH_GRADIENTS = ["eager", "sdpa"]


@pytest.fixture(scope="module")
def folder(shared_dir: Path) -> Path:
    return shared_dir / "references" / "chatglm2-6b"


@pytest.fixture(scope="module")
def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "references.safetensors")


@pytest.fixture(scope="module")
def facts(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "references.json").read_text(encoding="utf-8"))
    return facts


@pytest.fixture(autouse=True)
def _flex_attention_without_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs flex attention unfused, which takes no compilation, except in tests marked slow."""
    chosen = getattr(request.node, "callspec", None)
    if chosen is None or chosen.params.get("implementation") != "flex_attention":
        yield
        return
    if request.node.get_closest_marker("slow"):
        torch._dynamo.reset()
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        yield


def load(folder: Path, implementation: str = "sdpa") -> ChatGLM2ForConditionalGeneration:
    return ChatGLM2ForConditionalGeneration.from_pretrained(
        folder, attn_implementation=implementation
    ).eval()


def record_positions(model: ChatGLM2ForConditionalGeneration) -> list[Tensor]:
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


def test_every_weight_is_loaded_and_none_left_over(folder):
    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is ChatGLM2ForConditionalGeneration
    assert {name: list(found) for name, found in info.items()} == {
        "missing_keys": [],
        "unexpected_keys": [],
        "mismatched_keys": [],
        "error_msgs": [],
    }


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_single_hidden_states_and_logits(folder, tensors, implementation):
    output = load(folder, implementation)(tensors["single.input_ids"], output_hidden_states=True)
    assert_close(torch.stack(output.hidden_states), tensors["single.hidden_states"])
    assert_close(output.logits, tensors["single.logits"])


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["flex_attention"])
@torch.no_grad()
def test_fused_flex_attention(folder, tensors, implementation):
    model = load(folder, implementation)
    assert_close(model(tensors["single.input_ids"]).logits, tensors["single.logits"])
    output = model(tensors["batch.input_ids"], attention_mask=tensors["batch.attention_mask"])
    real = tensors["batch.attention_mask"].bool()
    assert_close(output.logits[real], tensors["batch.logits"][real])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("give_positions", [True, False], ids=["positions", "no-positions"])
@torch.no_grad()
def test_batch_logits_at_real_tokens(folder, tensors, implementation, give_positions):
    output = load(folder, implementation)(
        tensors["batch.input_ids"],
        attention_mask=tensors["batch.attention_mask"],
        position_ids=tensors["batch.position_ids"] if give_positions else None,
    )
    real = tensors["batch.attention_mask"].bool()
    assert bool(output.logits.isfinite().all())
    assert_close(output.logits[real], tensors["batch.logits"][real])


@torch.no_grad()
def test_mask_and_positions_of_a_batch_are_built_exactly(folder, tensors):
    model = load(folder, "sdpa")
    seen = []
    model.transformer.encoder.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    model(tensors["batch.input_ids"], attention_mask=tensors["batch.attention_mask"])
    assert torch.equal(seen[0]["position_ids"], tensors["batch.position_ids"])
    real = tensors["batch.attention_mask"].bool()  # what a padding query sees does not matter
    expected = ~tensors["batch.full_attention_mask"]
    assert torch.equal(seen[0]["attention_mask"][:, 0][real], expected[:, 0][real])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_batch_with_explicit_mask(folder, tensors, implementation):
    output = load(folder, implementation)(
        tensors["batch.input_ids"],
        attention_mask=~tensors["batch.full_attention_mask"],
        position_ids=tensors["batch.position_ids"],
    )
    assert_close(output.logits, tensors["batch.logits"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_batch_without_a_mask_attends_to_pads(folder, tensors, implementation):
    output = load(folder, implementation)(tensors["batch.input_ids"], logits_to_keep=1)
    assert_close(output.logits[:, 0], tensors["batch_ids_only.last_logits"])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS_WITH_GRADIENTS)
@pytest.mark.parametrize(
    ("case", "inputs"), [("train_left", "batch"), ("train_single", "single"), ("train_right", None)]
)
def test_training_loss_and_gradients(folder, tensors, facts, implementation, case, inputs):
    model = load(folder, implementation)
    arguments = {"input_ids": tensors[f"{inputs or case}.input_ids"]}
    if inputs == "batch":
        arguments["attention_mask"] = tensors["batch.attention_mask"]
        arguments["position_ids"] = tensors["batch.position_ids"]
    loss = model(**arguments, labels=tensors[f"{case}.labels"]).loss
    assert float(loss.detach()) == pytest.approx(float(tensors[f"{case}.loss"]), rel=1e-5)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    assert norms == pytest.approx(facts["grad_norms"][case], rel=1e-4)
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(facts["grad_norm_total"][case], rel=1e-4)
    recorded = {
        name.removeprefix(f"{case}.grad."): gradient
        for name, gradient in tensors.items()
        if name.startswith(f"{case}.grad.")
    }
    assert len(recorded) == (3 if case == "train_left" else 2)
    for name, expected in recorded.items():
        assert float((gradients[name] - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("implementation", ["flex_attention"])
@pytest.mark.parametrize(
    ("case", "inputs"), [("train_left", "batch"), ("train_single", "single"), ("train_right", None)]
)
@torch.no_grad()
def test_training_loss_with_flex_attention(folder, tensors, implementation, case, inputs):
    padded = {"attention_mask": tensors["batch.attention_mask"]} if inputs == "batch" else {}
    loss = load(folder, implementation)(
        tensors[f"{inputs or case}.input_ids"], labels=tensors[f"{case}.labels"], **padded
    ).loss
    assert float(loss) == pytest.approx(float(tensors[f"{case}.loss"]), rel=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS_WITH_GRADIENTS)
def test_right_padding_with_a_mask_gives_the_same_loss(folder, tensors, implementation):
    input_ids = tensors["train_right.input_ids"]
    labels = tensors["train_right.labels"]
    loss = load(folder, implementation)(
        input_ids, attention_mask=(input_ids != 0).long(), labels=labels
    ).loss
    expected = float(tensors["train_right.loss"])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_generates_single(folder, tensors, implementation):
    model = load(folder, implementation)
    seen = record_positions(model)
    output = model.generate(tensors["gen_single.input_ids"], max_new_tokens=24, do_sample=False)
    assert torch.equal(output, tensors["gen_single.output_ids"])
    newest = torch.cat([positions[:, -1:] for positions in seen], dim=-1)
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
    newest = torch.cat([positions[:, -1:] for positions in seen], dim=-1)
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
    expected = tensors[f"inc_{case}.step_logits"]
    positions = tensors[f"inc_{case}.step_position_ids"]
    mask = torch.ones_like(output_ids)
    if case == "batch":
        mask[:, : input_ids.shape[1]] = tensors["gen_batch.attention_mask"]
    cache = None
    for step in range(24):
        length = input_ids.shape[1] + step
        output = model(
            input_ids if step == 0 else output_ids[:, length - 1 : length],
            attention_mask=mask[:, :length],
            position_ids=None if step == 0 else positions[:, step : step + 1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        if step < expected.shape[1]:
            assert_close(output.logits[:, 0], expected[:, step])
    real = mask[:, : cache.get_seq_length()].bool().T  # (K, B)
    for name in ("key", "value"):
        ours = getattr(cache.layers[0], f"{name}s").permute(2, 0, 1, 3)  # (K, B, G, D)
        assert_close(ours[real], tensors[f"inc_{case}.past_{name}_layer0"][real])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["single", "batch"])
@torch.no_grad()
def test_increments_find_their_positions(folder, tensors, case, implementation):
    input_ids = tensors[f"gen_{case}.input_ids"]
    newest = tensors[f"gen_{case}.output_ids"][:, input_ids.shape[1]][:, None]
    mask = tensors["gen_batch.attention_mask"] if case == "batch" else torch.ones_like(input_ids)
    model = load(folder, implementation)
    cache = model(input_ids, attention_mask=mask, use_cache=True).past_key_values
    mask = torch.cat([mask, torch.ones_like(newest)], dim=1)
    output = model(newest, attention_mask=mask, past_key_values=cache)
    assert_close(output.logits[:, 0], tensors[f"inc_{case}.step_logits"][:, 1])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@torch.no_grad()
def test_chunk_on_top_of_a_cache(folder, tensors, implementation):
    model = load(folder, implementation)
    prompt = tensors["gen_single.input_ids"]
    rest = tensors["single.input_ids"][:, prompt.shape[1] :]
    cache = model(prompt, use_cache=True).past_key_values
    assert_close(model(rest, past_key_values=cache).logits, tensors["chunked.logits"])


def test_full_size_names_shapes_and_counts(folder):
    facts = json.loads((folder / "full_size_state_dict.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = ChatGLM2ForConditionalGeneration(ChatGLM2Config(**facts["config"]))
    names = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert names == facts["state_dict"]
    assert [name for name, _ in model.named_buffers()] == facts["buffers"]
    assert sum(p.numel() for p in model.parameters()) == facts["num_parameters"] == 6_243_584_000


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_full_size_lora_counts(folder):
    from peft import LoraConfig, get_peft_model

    facts = json.loads((folder / "full_size_state_dict.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = ChatGLM2ForConditionalGeneration(ChatGLM2Config(**facts["config"]))
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules=["query_key_value"]))
    assert adapted.get_nb_trainable_parameters() == (1_949_696, 6_245_533_696)
