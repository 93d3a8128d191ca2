from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.extraction.builders import build_mistral, build_qwen3, build_sliding
from tests.training.graphs import collect_graphs, compile_with
from tripletune.models import packed_attention
from tripletune.models.packed_attention import PACKED_ATTENTION, register_packed_attention
from tripletune.training import acceleration
from tripletune.training.acceleration import (
    evaluation_as_it_is,
    plain_attention,
    switch_attention,
)
from tripletune.training.fast_layers import compile_blocks

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip


class Adapted:
    """What `plain_attention` asks of a PEFT model."""

    def __init__(self, base: LlamaForCausalLM) -> None:
        self._base = base

    def get_base_model(self) -> LlamaForCausalLM:
        return self._base


def test_without_triton_flex_attention_is_taken():
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    assert switch_attention(model) == "flex attention"
    assert model.config._attn_implementation == "flex_attention"


def test_without_triton_what_is_not_compiled_keeps_sdpa():
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    assert switch_attention(model, compiled=False) == "sdpa"
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("capped", [None, 50.0])
def test_capped_scores_are_left_to_flex_attention_and_generation_to_eager(capped, monkeypatch):
    monkeypatch.setattr(acceleration, "has_packed_attention", lambda: True)
    config = Gemma2Config(**SIZES, attn_logit_softcapping=capped)
    model = Gemma2ForCausalLM(config)
    expected = "flex attention" if capped else "packed attention"
    assert switch_attention(model) == expected
    with plain_attention(Adapted(model)):
        assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("before", ["flex_attention", PACKED_ATTENTION])
def test_generation_goes_without_and_training_goes_on_with_it(before: str):
    register_packed_attention()
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    model.set_attn_implementation(before)
    with plain_attention(Adapted(model)):
        assert model.config._attn_implementation == "sdpa"
    assert model.config._attn_implementation == before


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
@pytest.mark.parametrize(("attention", "num_graphs"), [("sdpa", 0), ("flex_attention", 1)])
def test_evaluation_compiles_nothing_but_flex_attention(attention: str, num_graphs: int):
    collect, graphs = collect_graphs()

    @torch.compile(backend=collect)
    def add_one(x):
        return x + 1

    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    model.config._attn_implementation = attention
    with evaluation_as_it_is(Adapted(model)):
        assert add_one(torch.ones(2)).tolist() == [2.0, 2.0]
    assert len(graphs) == num_graphs


def attend_plainly(query, key, value, runs, *, scaling):
    """What `attend_runs` does on a GPU, written out."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    place = torch.arange(query.shape[2])
    seen = (place >= runs[:, 0, :, None]) & (place <= runs[:, 1, :, None])  # (B, S, S)
    scores = query @ key.transpose(2, 3) * scaling
    weights = scores.masked_fill(~seen[:, None], float("-inf")).softmax(dim=-1)
    return (weights @ value).transpose(1, 2)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns itself about itself
@pytest.mark.parametrize("build", [build_sliding, build_qwen3, build_mistral])
def test_layers_with_and_without_a_window_compile_to_one_graph(build, monkeypatch):
    monkeypatch.setattr(packed_attention, "attend_runs", attend_plainly)
    monkeypatch.setattr(acceleration, "has_packed_attention", lambda: True)
    model = type(build())(build().config.__class__(**build().config.to_dict() | {"head_dim": 16}))
    ids = torch.randint(0, 40, (1, 29))
    alone = [model(input_ids=part, use_cache=False).logits for part in ids.split([9, 20], dim=1)]
    collect, graphs = collect_graphs()
    compile_with(collect, monkeypatch)
    assert switch_attention(model) == "packed attention"
    # Otherwise the first block differs: its input has no gradient.
    model.enable_input_require_grads()
    compile_blocks(model)
    positions = torch.tensor([[*range(9), *range(20)]])
    together = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(together, torch.cat(alone, dim=1))
    torch._dynamo.reset()
    assert len(graphs) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_packed_documents_of_any_model_do_not_see_each_other():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).cuda().bfloat16().eval()
    ids = torch.randint(0, 50, (1, 12), device="cuda")
    alone = [model(input_ids=part).logits for part in ids.split([5, 7], dim=1)]
    assert switch_attention(model) == "packed attention"
    positions = torch.tensor([[*range(5), *range(7)]], device="cuda")
    together = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    assert (together - torch.cat(alone, dim=1)).abs().max() < 0.02
