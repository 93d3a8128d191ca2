"""The tokenizers of ChatGLM2 and 3 against what the official code made of the same texts."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from transformers.tokenization_python import PreTrainedTokenizer

from tripletune.errors import DataError, ModelError
from tripletune.models.tokenization_chatglm2 import (
    ChatGLM2Tokenizer,
    ChatGLM3Tokenizer,
    is_chatglm3_tokenizer,
    read_messages,
)

CLASSES = {"chatglm2-6b": ChatGLM2Tokenizer, "chatglm3-6b": ChatGLM3Tokenizer}
BOTH = pytest.mark.parametrize("family", list(CLASSES))
SETTINGS: dict[str, dict[str, Any]] = {
    "unpadded": {},
    "padding_longest": {"padding": True},
    "padding_max_length_24": {"padding": "max_length", "max_length": 24, "truncation": True},
    "pad_to_multiple_of_8": {"padding": True, "pad_to_multiple_of": 8},
    "truncation_5": {"truncation": True, "max_length": 5, "padding": True},
}


def load(shared_dir: Path, family: str, **kwargs: Any) -> Any:
    return CLASSES[family].from_pretrained(shared_dir / "tokenizers" / family, **kwargs)


def read_recorded(shared_dir: Path, family: str) -> dict[str, Any]:
    path = shared_dir / "references" / family / "tokenization.json"
    recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return recorded


@pytest.fixture(scope="module")
def second(shared_dir: Path) -> ChatGLM2Tokenizer:
    return load(shared_dir, "chatglm2-6b")


@pytest.fixture(scope="module")
def third(shared_dir: Path) -> ChatGLM3Tokenizer:
    return load(shared_dir, "chatglm3-6b")


@BOTH
def test_auto_tokenizer_gives_our_class(shared_dir, family):
    tokenizer = AutoTokenizer.from_pretrained(shared_dir / "tokenizers" / family)
    assert type(tokenizer) is CLASSES[family]


@BOTH
def test_strings(shared_dir, family):
    tokenizer = load(shared_dir, family)
    ours, official = [], []
    for case in read_recorded(shared_dir, family)["strings"]:
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
        assert tokenizer.encode_text(text) == tokenizer.encode_plain(text) == ids
        assert tokenizer.decode_text(with_special) == case["decode"]
    assert len(ours) == 139
    assert ours == official


@BOTH
def test_pairs(shared_dir, family):
    tokenizer = load(shared_dir, family)
    pairs = read_recorded(shared_dir, family)["pairs"]
    assert len(pairs) == 4
    for case in pairs:
        both = tokenizer.build_inputs_with_special_tokens(case["a_ids"], case["b_ids"])
        assert both == case["build_inputs_with_special_tokens"]
        assert tokenizer.build_inputs_with_special_tokens(case["a_ids"]) == case["build_single"]
        assert dict(tokenizer(case["a"], text_pair=case["b"])) == case["call_pair"]
        assert tokenizer.decode(both) == case["decode_full"]


@BOTH
@pytest.mark.parametrize("setting", SETTINGS)
def test_batches(shared_dir, family, setting):
    tokenizer = load(shared_dir, family)
    batches = read_recorded(shared_dir, family)["batches"]
    assert len(batches) == 4
    for batch in batches:
        assert dict(tokenizer(batch["texts"], **SETTINGS[setting])) == batch[setting]


@BOTH
def test_batches_of_pairs(shared_dir, family):
    tokenizer = load(shared_dir, family)
    for batch in read_recorded(shared_dir, family)["batches"]:
        first, second = (list(column) for column in zip(*batch["pair_texts"], strict=True))
        assert (
            dict(tokenizer(first, text_pair=second, padding=True))
            == (batch["pairs_padding_longest"])
        )


@BOTH
@pytest.mark.parametrize("truncation_side", ["left", "right"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("setting", [*SETTINGS, "no_special", "no_mask", "one"])
def test_quick_path_equals_the_path_of_the_library(
    shared_dir, family, padding_side, truncation_side, setting
):
    tokenizer = load(shared_dir, family, padding_side=padding_side, truncation_side=truncation_side)
    more = {
        "no_special": {"add_special_tokens": False, "padding": True},
        "no_mask": {"return_attention_mask": False},
        "one": {"truncation": True, "max_length": 1},
    }
    settings = (SETTINGS | more)[setting]
    texts = ["你好", "今天天气怎么样？", "a b  c\n\t", "x"]
    quick = tokenizer(texts, **settings)
    pieces = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in texts]
    slow = PreTrainedTokenizer._encode_plus(
        tokenizer,
        pieces,
        **_resolve(tokenizer, settings),
    )
    assert dict(quick) == dict(slow)


def _resolve(tokenizer: Any, settings: dict[str, Any]) -> dict[str, Any]:
    settings = dict(settings)
    padding, truncation, max_length, _ = tokenizer._get_padding_truncation_strategies(
        padding=settings.pop("padding", False),
        truncation=settings.pop("truncation", None),
        max_length=settings.pop("max_length", None),
        pad_to_multiple_of=settings.get("pad_to_multiple_of"),
    )
    return settings | {
        "padding_strategy": padding,
        "truncation_strategy": truncation,
        "max_length": max_length,
    }


@BOTH
def test_single_text_with_tensors_has_a_batch_dimension(shared_dir, family):
    encoded = load(shared_dir, family)("你好", return_tensors="pt")
    assert encoded["input_ids"].tolist() == [[64790, 64792, 36474, 54591]]
    assert encoded["position_ids"].tolist() == [[0, 1, 2, 3]]


@BOTH
def test_special_ids(shared_dir, family):
    tokenizer, recorded = load(shared_dir, family), read_recorded(shared_dir, family)
    special = {token: tokenizer.get_command(token) for token in recorded["special_ids"]}
    assert special == recorded["special_ids"]
    assert tokenizer.vocab_size == recorded["vocab_size"]
    assert len(tokenizer) == recorded["len"]
    assert tokenizer.padding_side == recorded["padding_side"]
    assert tokenizer.pad_token_id == recorded["pad_token_id"]
    assert tokenizer.eos_token_id == recorded["eos_token_id"]
    assert tokenizer.get_prefix_tokens() == recorded["prefix_tokens"]
    assert tokenizer.all_special_ids == recorded["all_special_ids"]
    assert tokenizer.all_special_tokens == recorded["all_special_tokens"]
    assert tokenizer.gmask_token_id == 64790


def test_unknown_special_token_is_refused(second):
    with pytest.raises(DataError, match=r"'<\|user\|>' is unknown; there are <bos>"):
        second.get_command("<|user|>")


def test_second_generation_chat(second, shared_dir):
    cases = read_recorded(shared_dir, "chatglm2-6b")["chat"]
    assert len(cases) == 3
    for case in cases:
        history = [tuple(turn) for turn in case["history"]]
        assert second.build_prompt(case["query"], history) == case["prompt"]
        assert [second.build_chat_ids(case["query"], history)] == case["input_ids"]
        assert [second.build_next_chat_ids(case["query"], history)] == (
            case["stream_inputs_input_ids"]
        )
        assert dict(second([case["prompt"]])) == {
            name: case[name] for name in ("input_ids", "attention_mask", "position_ids")
        }
    assert second.build_prompt_ids(cases[0]["query"]) == cases[0]["input_ids"][0]


def test_third_generation_chat(third, shared_dir):
    cases = read_recorded(shared_dir, "chatglm3-6b")["chat"]
    assert len(cases) == 6
    for case in cases:
        role = case.get("role", "user")
        ids = third.build_chat_ids(case["query"], case["history"], role=role)
        assert [ids] == case["input_ids"]
        assert third.decode(ids) == case["decoded"]
        encoded = third.build_chat_input(case["query"], case["history"], role)
        names = ("input_ids", "attention_mask", "position_ids")
        assert {name: encoded[name].tolist() for name in names} == {
            name: case[name] for name in names
        }


def test_third_generation_prompt_opens_the_answer(third):
    line = [30910, 13]
    assert third.build_prompt_ids("你好") == [*third.build_chat_ids("你好"), *line]
    assert third.build_chat_ids("你好") == [64790, 64792, 64795, *line, 36474, 54591, 64796]


def test_third_generation_takes_pairs_as_history(third):
    pairs = third.build_chat_ids("b", [("你好", "a")])
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "a"}]
    assert pairs == third.build_chat_ids("b", messages)


def test_unknown_role_is_refused(third):
    with pytest.raises(DataError, match="role: 'tool' is unknown; a message is of system"):
        third.build_single_message("tool", "", "x")


@pytest.mark.parametrize("item", ["你好", {"role": "user"}, ("a",)])
def test_history_item_that_is_no_message_is_refused(item):
    with pytest.raises(DataError, match="is no message; give mappings"):
        read_messages([item])


def test_role_tokens_are_recognised_on_request(shared_dir):
    tokenizer = load(shared_dir, "chatglm3-6b", encode_special_tokens=True)
    cases = read_recorded(shared_dir, "chatglm3-6b")["encode_special_tokens"]
    assert len(cases) == 3
    for case in cases:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]
        assert (
            tokenizer(case["text"], add_special_tokens=False)["input_ids"]
            == (case["ids_no_special"])
        )
        assert tokenizer.encode_text(case["text"]) == case["ids_no_special"]


@BOTH
def test_ids_without_a_piece_decode_to_nothing(shared_dir, family):
    tokenizer = load(shared_dir, family)
    assert tokenizer.decode([36474, 0, 1, 2, 65000, 54591]) == "你好"
    assert tokenizer.decode_text([36474, 64795, 2, 54591]) == "你好"


def test_control_ids_part_a_run_of_bytes(second):
    # The piece without text stands between the two halves of a character, as officially.
    halves = second.encode_plain("ݒ")[-2:]
    assert second.decode(halves) == "ݒ"
    assert second.decode([halves[0], 1, halves[1]]) == "��"


def test_decode_chat_cleans_the_answer(second):
    ids = [*second.encode_plain("\n 今年是[[训练时间]]。 "), 2]
    assert second.decode_chat(ids) == "今年是2023年。"


@BOTH
def test_special_tokens_mask_marks_what_is_no_text(shared_dir, family):
    tokenizer = load(shared_dir, family)
    encoded = tokenizer("你好", "a", return_special_tokens_mask=True)
    assert encoded["special_tokens_mask"] == [1, 1, 0, 0, 0, 1]
    mask = tokenizer.get_special_tokens_mask(encoded["input_ids"], already_has_special_tokens=True)
    assert mask == [1, 1, 0, 0, 0, 1]


@BOTH
def test_vocabulary_holds_every_piece_once(shared_dir, family):
    tokenizer = load(shared_dir, family)
    vocabulary = tokenizer.get_vocab()
    assert sorted(vocabulary.values()) == list(range(tokenizer.vocab_size))
    assert tokenizer.convert_tokens_to_ids(["▁你", "[gMASK]"]) == [36474, 64790]


@BOTH
def test_added_tokens_are_recognised(shared_dir, family):
    tokenizer = load(shared_dir, family)
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<关系>"]) == 1
    ids = tokenizer("你好<关系>", add_special_tokens=False)["input_ids"]
    assert ids == [36474, 54591, size] == tokenizer.encode_text("你好<关系>")
    assert tokenizer.tokenize("你好<关系>") == ["▁你", "好", "<关系>"]
    assert tokenizer.decode(ids) == "你好<关系>"


@BOTH
def test_save_and_load_gives_the_same_tokenizer(shared_dir, family, tmp_path):
    tokenizer = load(shared_dir, family)
    tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert settings["tokenizer_class"] == "ChatGLMTokenizer"
    assert "auto_map" not in settings
    assert is_chatglm3_tokenizer(settings) is (family == "chatglm3-6b")
    again = CLASSES[family].from_pretrained(tmp_path)
    for case in read_recorded(shared_dir, family)["strings"]:
        assert again.encode(case["text"]) == case["ids_with_special"]
    assert (tmp_path / "tokenizer.model").read_bytes() == Path(tokenizer.vocab_file).read_bytes()


@BOTH
def test_auto_tokenizer_reads_a_saved_folder(shared_dir, family, tmp_path):
    load(shared_dir, family).save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is CLASSES[family]


def test_saved_role_setting_survives(shared_dir, tmp_path):
    load(shared_dir, "chatglm3-6b", encode_special_tokens=True).save_pretrained(tmp_path)
    assert ChatGLM3Tokenizer.from_pretrained(tmp_path).encode_special_tokens is True


@BOTH
def test_official_settings_tell_the_generation(shared_dir, family):
    path = shared_dir / "tokenizers" / family / "tokenizer_config.json"
    assert is_chatglm3_tokenizer(json.loads(path.read_text("utf-8"))) is (family == "chatglm3-6b")


def test_tokenizer_can_be_sent_to_another_process(second):
    assert pickle.loads(pickle.dumps(second)).encode("你好") == second.encode("你好")


def test_padding_features_keeps_positions(second):
    features = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
    padded = second.pad(features, return_tensors="pt")
    assert padded["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert padded["position_ids"].dtype == torch.int64
    assert padded["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_missing_vocabulary_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.model' does not exist"):
        ChatGLM2Tokenizer(str(tmp_path / "tokenizer.model"))


def test_pointer_in_place_of_the_vocabulary_is_refused(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    with pytest.raises(ModelError, match="git lfs pull"):
        ChatGLM2Tokenizer(str(path))
