from __future__ import annotations

import pytest
import torch
from torch import nn

from tripletune.errors import ConfigError
from tripletune.models.loading import load_model
from tripletune.training.adapters import (
    add_lora,
    count_parameters,
    find_linear_names,
    render_parameter_line,
)

CHATGLM_LINEAR = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
# Of the tiny network: E 64, F 128, V 4592, 2 layers; the head is the embedding.
BLOCK = 64 * 192 + 192 + 64 * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64 + 4 * 64
BASE = 4592 * 64 + 2 * BLOCK + 2 * 64


@pytest.fixture
def model(tiny_model_dir):
    return load_model(str(tiny_model_dir), quantize=False, device="cpu")


def adapt(model, **changes):
    settings = {
        "rank": 8,
        "alpha": 32,
        "dropout": 0.1,
        "target_modules": ("query_key_value",),
        "model_name": "THUDM/chatglm-6b",
    }
    return add_lora(model, **{**settings, **changes})


def test_find_linear_names_leaves_out_the_head(model):
    assert find_linear_names(model) == CHATGLM_LINEAR


def test_find_linear_names_counts_quantised_layers(tiny_model_dir):
    quantised = load_model(str(tiny_model_dir), quantize=True, device="cpu")
    assert find_linear_names(quantised) == CHATGLM_LINEAR


def test_find_linear_names_takes_any_module():
    assert find_linear_names(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == [
        "0",
        "2",
    ]


def test_add_lora_trains_two_matrices_a_layer(model):
    adapted = adapt(model)
    trainable = {name: p.shape for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trainable) == 4
    assert all(".query_key_value.lora_" in name for name in trainable)
    assert sorted(tuple(shape) for shape in trainable.values()) == [
        (8, 64),
        (8, 64),
        (192, 8),
        (192, 8),
    ]


def test_add_lora_takes_all_linear_layers(model):
    adapted = adapt(model, target_modules="all-linear", rank=2)
    trainable, _ = count_parameters(adapted)
    assert trainable == 2 * 2 * ((64 + 192) + (64 + 64) + (64 + 128) + (128 + 64))
    assert sorted(adapted.peft_config["default"].target_modules) == sorted(CHATGLM_LINEAR)


def test_add_lora_records_the_base_and_its_settings(model):
    config = adapt(model).peft_config["default"]
    assert config.base_model_name_or_path == "THUDM/chatglm-6b"
    assert config.revision is None
    assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 32, 0.1)
    assert str(config.task_type).endswith("CAUSAL_LM")


def test_add_lora_records_the_revision_of_the_base(model):
    assert adapt(model, revision="v1.1.0").peft_config["default"].revision == "v1.1.0"


@torch.no_grad()
def test_fresh_adapter_changes_nothing(model):
    ids = torch.tensor([[5, 6, 7, model.config.gmask_token_id, model.config.bos_token_id, 8]])
    before = model(ids).logits
    adapted = adapt(model).eval()
    torch.testing.assert_close(adapted(ids).logits, before, rtol=0, atol=0)


@torch.no_grad()
def test_disabled_adapter_is_the_base(model):
    ids = torch.tensor([[5, 6, 7, model.config.gmask_token_id, model.config.bos_token_id, 8]])
    before = model(ids).logits
    adapted = adapt(model).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    assert not torch.allclose(adapted(ids).logits, before)
    with adapted.disable_adapter():
        torch.testing.assert_close(adapted(ids).logits, before, rtol=0, atol=0)


def test_add_lora_names_the_layers_there_are(model):
    message = (
        r"lora_target_modules: 'q_proj' matches no linear layer in "
        r"ChatGLMForConditionalGeneration; available: query_key_value, dense, dense_h_to_4h, "
        r"dense_4h_to_h$"
    )
    with pytest.raises(ConfigError, match=message):
        adapt(model, target_modules=("query_key_value", "q_proj"))


def test_count_parameters_counts_shared_ones_once(model):
    assert count_parameters(model) == (BASE, BASE)
    assert count_parameters(adapt(model)) == (4 * 1024, BASE + 4 * 1024)


def test_count_parameters_sees_through_4_bit(tiny_model_dir):
    quantised = load_model(str(tiny_model_dir), quantize=True, device="cpu")
    assert count_parameters(adapt(quantised)) == (4 * 1024, BASE + 4 * 1024)


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (
            (1_949_696, 6_245_533_696),
            "trainable params: 1,949,696 || all params: 6,245,533,696 || trainable%: 0.0312",
        ),
        (
            (3_670_016, 6_176_956_416),
            "trainable params: 3,670,016 || all params: 6,176,956,416 || trainable%: 0.0594",
        ),
        ((5, 5), "trainable params: 5 || all params: 5 || trainable%: 100.0000"),
    ],
)
def test_render_parameter_line(counts, line):
    assert render_parameter_line(*counts) == line
