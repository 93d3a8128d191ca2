from __future__ import annotations

import pytest

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


def test_official_int4_config_names_the_full_precision_model():
    fields = {"quantization_bit": 4, "_name_or_path": "THUDM/chatglm-6b-int4"}
    with pytest.raises(ModelError, match=r"INT4 .* 'THUDM/chatglm-6b'"):
        ChatGLMFamilyConfig.from_dict(fields)


def test_lazy_classes_stand_for_the_networks():
    assert LazyChatGLM.network_class() is ChatGLMForConditionalGeneration
    assert LazyChatGLM2.network_class() is ChatGLM2ForConditionalGeneration


def test_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"neither ice_text\.model .* nor tokenizer\.model"):
        ChatGLMTokenizer.from_pretrained(tmp_path)
