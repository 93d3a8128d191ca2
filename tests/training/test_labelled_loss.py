from __future__ import annotations

import logging

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from tripletune.training.labelled_loss import use_labelled_loss

SIZES = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
}  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
LABELS = torch.tensor([[-100, -100, -100, 8, 9, 10]])


def test_llama_gives_the_same_loss_and_gradients():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    expected = model(input_ids=IDS, labels=LABELS, num_items_in_batch=torch.tensor(7)).loss
    weight = model.model.layers[0].mlp.up_proj.weight
    (wanted,) = torch.autograd.grad(expected, weight)
    assert use_labelled_loss(model)
    output = model.forward(input_ids=IDS, labels=LABELS, num_items_in_batch=torch.tensor(7))
    torch.testing.assert_close(output.loss, expected)
    assert output.logits is None
    torch.testing.assert_close(torch.autograd.grad(output.loss, weight)[0], wanted)


def test_without_labels_the_model_answers_as_before():
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    expected = model(input_ids=IDS).logits
    use_labelled_loss(model)
    assert torch.equal(model.forward(input_ids=IDS).logits, expected)


def test_capped_logits_keep_the_model_s_own_loss(caplog: pytest.LogCaptureFixture):
    torch.manual_seed(0)
    config = Gemma2Config(**SIZES, final_logit_softcapping=0.5, initializer_range=0.5)
    model = Gemma2ForCausalLM(config)
    before = model.forward
    with caplog.at_level(logging.WARNING, logger="tripletune"):
        assert not use_labelled_loss(model)
    assert model.forward == before
    assert "Gemma2ForCausalLM 保留自己的损失计算" in caplog.text
