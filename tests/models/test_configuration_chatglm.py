from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoConfig

from tripletune.models.configuration_chatglm import ChatGLMConfig


def test_defaults_are_the_official_sizes(shared_dir: Path):
    path = shared_dir / "tokenizers/chatglm-6b/config.json"
    official = json.loads(path.read_text(encoding="utf-8"))
    config = ChatGLMConfig()
    names = [
        *("hidden_size", "inner_hidden_size", "num_layers", "num_attention_heads", "vocab_size"),
        *("layernorm_epsilon", "max_sequence_length", "position_encoding_2d", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id"),
    ]
    assert {name: getattr(config, name) for name in names} == {
        name: official[name] for name in names
    }


def test_general_names_mean_the_official_fields():
    config = ChatGLMConfig(num_layers=3, inner_hidden_size=96, max_sequence_length=64)
    assert (
        config.num_hidden_layers,
        config.intermediate_size,
        config.max_position_embeddings,
    ) == (3, 96, 64)


def test_saved_configuration_is_read_back(tmp_path: Path):
    config = ChatGLMConfig(hidden_size=64, num_layers=2, vocab_size=500)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is ChatGLMConfig
    assert again.to_diff_dict() == config.to_diff_dict()
