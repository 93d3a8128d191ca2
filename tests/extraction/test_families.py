"""Slots in networks of many families, each of which builds its mask and attends in its own way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tests.extraction.builders import SIZES
from tripletune.extraction.generate import GenerationOptions, generate_greedy
from tripletune.extraction.slot_reader import supports_slots
from tripletune.models.attention_switch import takes_runs

COMMON = {
    **SIZES,
    "max_position_embeddings": 512,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FAMILIES: dict[str, tuple[bool, dict[str, Any]]] = {
    "cohere": (True, {}),
    "diffllama": (False, {}),
    "ernie4_5": (True, {}),
    "falcon": (False, {}),
    "gemma": (True, {"head_dim": 8}),
    "glm4": (True, {}),
    "gpt2": (True, {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "gpt_neox": (True, {}),
    "granite": (True, {}),
    "olmo2": (True, {}),
    "opt": (True, {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "phi3": (True, {}),
    "qwen2": (True, {}),
    "qwen3": (True, {}),
    "qwen3_moe": (True, EXPERTS),
    "smollm3": (True, {}),
    "starcoder2": (True, {}),
}
"""Whether each is told runs, and what its configuration needs beside the common."""


@pytest.mark.parametrize("family", FAMILIES)
def test_slots_write_what_a_batch_writes(family: str) -> None:
    runs, own = FAMILIES[family]
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**COMMON, **own})
    model = AutoModelForCausalLM.from_config(config).eval()
    assert supports_slots(model)
    assert takes_runs(model) is runs
    prompts = [[*range(5, 13)], [9, 10], [11, 12, 13], [*range(20, 25)]]
    written = {}
    for method in ("batch", "slots"):
        options = GenerationOptions(
            end_token_id=38, pad_token_id=3, max_new_tokens=14, batch_size=2, method=method
        )
        written[method] = generate_greedy(model, prompts, options)
    for found, expected in zip(written["slots"], written["batch"], strict=True):
        assert found.token_ids == expected.token_ids
        assert found.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
