"""Packed training is padded training: the same losses and gradients, step after step, in fp32."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tripletune.data.collate import PackedCollator, PaddedCollator
from tripletune.data.encode import TokenizedExample
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.chatglm2 import ChatGLM2ForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.configuration_chatglm2 import ChatGLM2Config
from tripletune.training.adapters import add_lora

STEPS = 20
BATCH = 4


def build_chatglm() -> Any:
    return ChatGLMForConditionalGeneration(
        ChatGLMConfig(
            vocab_size=40, hidden_size=32, num_layers=2, num_attention_heads=2,
            inner_hidden_size=64, mask_token_id=30, gmask_token_id=31, bos_token_id=34,
            eos_token_id=35,
        )
    )  # fmt: skip


def build_chatglm2() -> Any:
    return ChatGLM2ForConditionalGeneration(
        ChatGLM2Config(
            num_layers=2, padded_vocab_size=40, hidden_size=32, ffn_hidden_size=48, kv_channels=16,
            num_attention_heads=2, multi_query_group_num=1, seq_length=128, eos_token_id=2,
            pad_token_id=0,
        )
    )  # fmt: skip


def build_llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        )
    )  # fmt: skip


def make_batches() -> list[list[TokenizedExample]]:
    chance = random.Random(0)
    batches = []
    for _ in range(STEPS):
        batch = []
        for _ in range(BATCH):
            prompt = [chance.randrange(3, 29) for _ in range(chance.randint(2, 15))] + [31, 34]
            answer = [chance.randrange(3, 29) for _ in range(chance.randint(1, 9))] + [35]
            batch.append(TokenizedExample([*prompt, *answer], len(prompt)))
        batches.append(batch)
    return batches


def train(build: Any, collator: Any) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of all steps, and the gradients of the last."""
    torch.manual_seed(0)
    model = add_lora(
        build(), rank=4, alpha=8, dropout=0.0, target_modules="all-linear", model_name="tiny"
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for batch in make_batches():
        optimizer.zero_grad()
        loss = model(**collator(batch), use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients


@pytest.mark.parametrize("build", [build_chatglm, build_chatglm2, build_llama])
def test_twenty_steps_packed_and_padded_are_the_same(build):
    positions = "two_rows" if build is build_chatglm else "one_row"
    padded, padded_gradients = train(build, PaddedCollator(0, positions))
    packed, packed_gradients = train(build, PackedCollator(0, positions))
    assert packed == pytest.approx(padded, rel=1e-5)
    assert packed_gradients.keys() == padded_gradients.keys()
    for name, gradient in packed_gradients.items():
        largest = padded_gradients[name].abs().max()
        assert largest > 0, name
        assert (gradient - padded_gradients[name]).abs().max() <= 1e-4 * largest, name
