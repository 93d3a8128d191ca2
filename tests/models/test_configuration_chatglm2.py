from __future__ import annotations

import json
from pathlib import Path

import pytest

from tripletune.errors import ModelError
from tripletune.models.configuration_chatglm2 import ChatGLM2Config


def read_official(shared_dir: Path, family: str) -> dict:
    return json.loads((shared_dir / "tokenizers" / family / "config.json").read_text("utf-8"))


def test_official_fields_survive_reading_and_saving(shared_dir, tmp_path):
    official = read_official(shared_dir, "chatglm2-6b")
    (tmp_path / "config.json").write_text(json.dumps(official), encoding="utf-8")
    config = ChatGLM2Config.from_pretrained(tmp_path)
    config.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))
    # Renamed by `transformers` (torch_dtype), or about the folder it came from.
    expected = dict(official, dtype=official["torch_dtype"])
    for key in ("torch_dtype", "auto_map", "_name_or_path", "transformers_version"):
        del expected[key]
    assert {key: saved.get(key) for key in expected} == expected
    assert "auto_map" not in saved


def test_library_names_are_other_names_for_the_same_values():
    config = ChatGLM2Config()
    names = {
        "num_hidden_layers": 28,
        "vocab_size": 65024,
        "intermediate_size": 13696,
        "head_dim": 128,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
    }
    assert {name: getattr(config, name) for name in names} == names


def test_saved_model_type_is_the_official_one(tmp_path):
    config = ChatGLM2Config(num_layers=3)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["model_type"] == "chatglm"
    again = ChatGLM2Config.from_pretrained(tmp_path).to_dict()
    assert again == config.to_dict() | {"_name_or_path": str(tmp_path)}


@pytest.mark.parametrize(("family", "expected"), [("chatglm2-6b", False), ("chatglm3-6b", True)])
def test_rotary_precision_follows_the_generation(shared_dir, family, expected):
    assert ChatGLM2Config(**read_official(shared_dir, family)).rotary_in_fp32 is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"seq_length": 32768}, False),
        ({"seq_length": 8192}, True),
        ({"seq_length": 32768, "_name_or_path": "THUDM/chatglm3-6b-base"}, True),
        ({"seq_length": 8192, "rotary_in_fp32": False}, False),
    ],
)
def test_rotary_precision_is_told_by_length_name_or_field(fields, expected):
    assert ChatGLM2Config(**fields).rotary_in_fp32 is expected


def test_rotary_precision_is_told_by_the_name_loaded(tmp_path):
    folder = tmp_path / "my-ChatGLM3-clone"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "chatglm"}', encoding="utf-8")
    assert ChatGLM2Config.from_pretrained(folder).rotary_in_fp32 is True


def test_prequantised_weights_are_refused():
    with pytest.raises(ModelError, match=r"quantization_bit: 4 .*without -int4"):
        ChatGLM2Config(quantization_bit=4)
    assert ChatGLM2Config(quantization_bit=0).num_layers == 28


def test_prefix_encoder_is_refused():
    with pytest.raises(ModelError, match="pre_seq_len: 128"):
        ChatGLM2Config(pre_seq_len=128)


@pytest.mark.parametrize(
    ("key", "value"), [("rope_ratio", 50), ("rmsnorm", False), ("multi_query_attention", False)]
)
def test_settings_of_another_network_are_refused(key, value):
    with pytest.raises(ModelError, match=f"someone/name: {key}: {value}"):
        ChatGLM2Config(**{key: value, "_name_or_path": "someone/name"})


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ModelError, match=r"num_attention_heads 32 .*multi_query_group_num 3"):
        ChatGLM2Config(multi_query_group_num=3)
    with pytest.raises(ModelError, match="kv_channels 6"):
        ChatGLM2Config(kv_channels=6)
