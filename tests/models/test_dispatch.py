from __future__ import annotations

import json
import re
import shutil

import pytest
from transformers import AutoModel

from tripletune.errors import ModelError
from tripletune.models.chatglm import ChatGLMForConditionalGeneration
from tripletune.models.chatglm2 import ChatGLM2ForConditionalGeneration
from tripletune.models.configuration_chatglm import ChatGLMConfig
from tripletune.models.configuration_chatglm2 import ChatGLM2Config
from tripletune.models.dispatch import (
    ChatGLMFamilyConfig,
    ChatGLMTokenizer,
    LazyChatGLM,
    LazyChatGLM2,
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"inner_hidden_size": 64, "hidden_size": 32, "num_attention_heads": 2}, ChatGLMConfig),
        ({"padded_vocab_size": 64, "multi_query_group_num": 2}, ChatGLM2Config),
    ],
)
def test_config_is_told_apart_by_its_fields(fields, expected):
    assert type(ChatGLMFamilyConfig.from_dict({"model_type": "chatglm", **fields})) is expected


def test_config_of_neither_kind_is_refused():
    with pytest.raises(ModelError, match="neither inner_hidden_size"):
        ChatGLMFamilyConfig.from_dict({"model_type": "chatglm"})


@pytest.mark.parametrize(
    ("fields", "full"),
    [
        ({"inner_hidden_size": 16384}, "THUDM/chatglm-6b"),
        ({"padded_vocab_size": 65024, "seq_length": 32768}, "THUDM/chatglm2-6b"),
        ({"padded_vocab_size": 65024, "seq_length": 8192}, "THUDM/chatglm3-6b"),
    ],
)
def test_official_int4_config_names_the_file_and_the_full_precision_model(fields, full):
    fields |= {"model_type": "chatglm", "quantization_bit": 4}
    with pytest.raises(ModelError, match=rf"^some/int4/config\.json: .*INT4 .* use '{full}'"):
        ChatGLMFamilyConfig.from_dict(fields, name_or_path="some/int4")


def test_lazy_classes_stand_for_the_networks():
    assert LazyChatGLM.network_class() is ChatGLMForConditionalGeneration
    assert LazyChatGLM2.network_class() is ChatGLM2ForConditionalGeneration


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"", None])
def test_damaged_folder_is_named_where_the_library_loads_it(tiny_model_dir, tmp_path, content):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    if content is not None:
        (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^{re.escape(str(folder))}.*: "):
        AutoModel.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.filterwarnings("ignore")
def test_weights_of_another_size_may_be_asked_for(tiny_model_dir, tmp_path):
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields["inner_hidden_size"] += 64
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ModelError, match="has shape"):
        AutoModel.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, ignore_mismatched_sizes=True)
    assert model.config.inner_hidden_size == fields["inner_hidden_size"]


def test_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"neither ice_text\.model .* nor tokenizer\.model"):
        ChatGLMTokenizer.from_pretrained(tmp_path)
