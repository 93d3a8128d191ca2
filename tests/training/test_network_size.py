from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.training.plan_cases import CHATGLM
from tripletune.errors import ConfigError
from tripletune.models import packed_attention
from tripletune.training.network_size import NetworkSize, describe_network, read_network_size

TINY = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "vocab_size": 48}


@pytest.fixture
def write_config(tmp_path):
    def write(**fields):
        (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
        return str(tmp_path)

    return write


def read(folder, **changes):
    options = {"rank": 8, "target_modules": ("query_key_value",), "quantize": True}
    return read_network_size(folder, **{**options, **changes})


def test_chatglm_6b_is_read_from_its_configuration_alone(write_config):
    folder = write_config(
        architectures=["ChatGLMModel"],
        model_type="chatglm",
        vocab_size=130528,
        hidden_size=4096,
        inner_hidden_size=16384,
        num_layers=28,
        num_attention_heads=32,
        position_encoding_2d=True,
    )
    assert read(folder) == CHATGLM
    # 28 layers of 12 E**2 at half a byte, an 8-bit scale for 64, an fp32 scale for 256 of those.
    linear = 28 * 12 * 4096**2
    packed = linear // 2 + linear // 64 + 4 * (linear // 64 // 256)
    others = 130528 * 4096 + 28 * (3 + 1 + 4 + 1 + 4) * 4096 + 2 * 4096
    assert CHATGLM.weight_bytes == packed + 2 * others
    assert CHATGLM.cache_bytes == 458_752


def test_without_quantisation_every_weight_has_two_bytes(write_config):
    folder = write_config(model_type="chatglm", inner_hidden_size=64, **TINY)
    size = read(folder, quantize=False)
    block = 3 * 32 * 32 + 96 + 32 * 32 + 32 + 2 * 32 * 64 + 64 + 32 + 4 * 32
    assert size.weight_bytes == 2 * (48 * 32 + 2 * block + 64)


def test_grouped_keys_and_a_gated_mlp_are_seen(write_config):
    folder = write_config(
        model_type="chatglm",
        hidden_size=64,
        ffn_hidden_size=96,
        kv_channels=16,
        multi_query_attention=True,
        multi_query_group_num=2,
        num_attention_heads=4,
        num_layers=3,
        padded_vocab_size=80,
        rmsnorm=True,
        add_qkv_bias=True,
    )
    size = read(folder)
    assert size.is_gated
    assert (size.mlp_in, size.mlp_out) == (192, 96)
    assert (size.query_width, size.key_width, size.vocabulary) == (64, 32, 80)
    assert size.norms == (2, False)
    assert not size.rotates_apart
    assert size.trainable == 3 * 8 * (64 + 128)


def test_model_of_transformers_is_described_too(tmp_path):
    from transformers import Qwen3Config

    Qwen3Config(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
    ).save_pretrained(tmp_path)  # fmt: skip
    size = read(str(tmp_path), target_modules="all-linear", rank=2)
    attention = 32 * 64 + 2 * 32 * 32 + 64 * 32
    widths = (32, 32, 32, 64, 32, 32, 48)
    outputs = (64, 32, 32, 32, 48, 48, 32)
    linear = 2 * (attention + 3 * 32 * 48)
    groups = sum(
        2 * (count // 64 + 4 * -(-(count // 64) // 256))
        for count in (i * o for i, o in zip(widths, outputs, strict=True))
    )
    assert size == NetworkSize(
        weight_bytes=linear // 2 + groups + 2 * (100 * 32 + 2 * (2 * 32 + 2 * 16) + 32),
        frozen_parameters=linear,
        trainable=2 * 2 * (sum(widths) + sum(outputs)),
        layers=2,
        width=32,
        query_width=64,
        key_width=32,
        heads=4,
        mlp_in=96,
        mlp_out=48,
        vocabulary=100,
        largest_weight=64 * 32,
        norms=(2, False),
        head_norms=True,
        adapted_widths=widths,
        adapted_mlp_inputs=(32, 48),
        is_native=False,
        rotates_apart=False,
    )


def test_what_is_read_from_the_configuration_is_what_is_loaded(tiny_model_dir):
    from tripletune.models.loading import load_model

    model = load_model(str(tiny_model_dir), quantize=False)
    loaded = describe_network(model, rank=4, target_modules=("dense",), quantize=False)
    read_size = read(str(tiny_model_dir), rank=4, target_modules=("dense",), quantize=False)
    assert loaded == read_size
    in_bytes = sum(parameter.numel() for parameter in model.parameters()) * 2
    assert read_size == replace(read_size, weight_bytes=in_bytes)


def test_target_that_matches_nothing_is_named(tiny_model_dir):
    with pytest.raises(ConfigError, match=r"'q_proj' matches no linear layer.*query_key_value"):
        read(str(tiny_model_dir), target_modules=("q_proj",))


def test_rotation_takes_memory_of_its_own_where_a_gpu_lacks_the_kernels(write_config, monkeypatch):
    folder = write_config(model_type="chatglm", inner_hidden_size=64, **TINY)
    assert not read(folder).rotates_apart
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(packed_attention, "triton", None)
    assert read(folder).rotates_apart
