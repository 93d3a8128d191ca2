"""The tokenizer of ChatGLM-6B against what the official code made of the same texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from tripletune.errors import ModelError
from tripletune.models.tokenization_chatglm import ChatGLMTokenizer


@pytest.fixture(scope="module")
def tokenizer(shared_dir: Path) -> ChatGLMTokenizer:
    return AutoTokenizer.from_pretrained(shared_dir / "tokenizers/chatglm-6b")


@pytest.fixture(scope="module")
def recorded(shared_dir: Path) -> dict[str, Any]:
    path = shared_dir / "references/chatglm-6b/tokenization.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_auto_tokenizer_gives_our_class(tokenizer):
    assert type(tokenizer) is ChatGLMTokenizer


def test_strings(tokenizer, recorded):
    ours, official = [], []
    for case in recorded["strings"]:
        text = case["text"]
        ids = tokenizer.encode(text, add_special_tokens=False)
        with_special = tokenizer.encode(text)
        ours.append(
            {
                "text": text,
                "tokens": tokenizer.tokenize(text),
                "ids_no_special": ids,
                "ids_with_special": with_special,
                "decode": tokenizer.decode(ids),
                "decode_with_special": tokenizer.decode(with_special),
                "decode_with_special_skip": tokenizer.decode(
                    with_special, skip_special_tokens=True
                ),
            }
        )
        official.append({key: case[key] for key in ours[-1]})
    assert len(ours) == 139
    assert ours == official


def test_pairs(tokenizer, recorded):
    assert len(recorded["pairs"]) == 4
    for case in recorded["pairs"]:
        build = tokenizer.build_inputs_with_special_tokens
        assert build(case["a_ids"], case["b_ids"]) == case["build_inputs_with_special_tokens"]
        assert build(case["a_ids"]) == case["build_single"]
        assert dict(tokenizer(case["a"], text_pair=case["b"])) == case["call_pair"]
        assert tokenizer.decode(build(case["a_ids"], case["b_ids"])) == case["decode_full"]


SETTINGS: dict[str, dict[str, Any]] = {
    "unpadded": {},
    "padding_longest": {"padding": True},
    "padding_max_length_24": {"padding": "max_length", "max_length": 24, "truncation": True},
    "pad_to_multiple_of_8": {"padding": True, "pad_to_multiple_of": 8},
    "truncation_5": {"truncation": True, "max_length": 5, "padding": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_batches(tokenizer, recorded, setting):
    assert len(recorded["batches"]) == 4
    for batch in recorded["batches"]:
        ours = readable(tokenizer(batch["texts"], **SETTINGS[setting]))
        assert ours == batch[setting]


def test_batches_of_pairs(tokenizer, recorded):
    for batch in recorded["batches"]:
        first, second = zip(*batch["pair_texts"], strict=True)
        ours = readable(tokenizer(list(first), text_pair=list(second), padding=True))
        assert ours == batch["pairs_padding_longest"]


def readable(encoded: Any) -> dict[str, Any]:
    """Masks as strings of 0 and 1, one for each query, as they are recorded."""
    result = dict(encoded)
    if "position_ids" in result:
        result["position_ids"] = [np.asarray(rows).tolist() for rows in result["position_ids"]]
    if "attention_mask" in result:
        result["attention_mask"] = [
            [["".join("01"[int(v)] for v in row) for row in head] for head in mask]
            for mask in result["attention_mask"]
        ]
    return result


def test_chat_prompts(tokenizer, recorded):
    assert len(recorded["chat"]) == 3
    for case in recorded["chat"]:
        history = [tuple(turn) for turn in case["history"]]
        assert tokenizer.build_prompt(case["query"], history) == case["prompt"]
        assert [tokenizer.build_chat_ids(case["query"], history)] == case["input_ids"]


def test_special_ids(tokenizer, recorded):
    for token, index in recorded["special_ids"].items():
        assert tokenizer.convert_tokens_to_ids(token) == index
    assert tokenizer.vocab_size == recorded["vocab_size"]
    assert len(tokenizer) == recorded["len"]
    assert tokenizer.padding_side == recorded["padding_side"]
    assert tokenizer.pad_token_id == recorded["pad_token_id"]
    assert tokenizer.eos_token_id == recorded["eos_token_id"]
    assert sorted(tokenizer.all_special_ids) == sorted(recorded["all_special_ids"])
    assert sorted(tokenizer.all_special_tokens) == sorted(recorded["all_special_tokens"])
    for name, index in recorded["unk_bos_sp"].items():
        assert getattr(tokenizer, name) == index


def test_save_and_load_gives_the_same_ids(tokenizer, recorded, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for case in recorded["strings"]:
        assert again.encode(case["text"]) == case["ids_with_special"]


def test_decode_chat_uses_full_width_punctuation_beside_chinese(tokenizer):
    ids = tokenizer.encode("你好,世界! a,b", add_special_tokens=False)
    assert tokenizer.decode_chat(ids) == "你好，世界！ a,b"


def test_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.model' does not exist"):
        ChatGLMTokenizer(str(tmp_path / "gone.model"))


def test_pointer_instead_of_vocabulary_is_named(tmp_path):
    path = tmp_path / "ice_text.model"
    path.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    with pytest.raises(ModelError, match="git lfs pull"):
        ChatGLMTokenizer(str(path))


def test_ids_beyond_the_vocabulary_have_no_text(tokenizer):
    ids = tokenizer.encode("你好", add_special_tokens=False)
    assert tokenizer.decode([*ids, 130_400]) == "你好"
