"""Quick encoding against the library's way, with the vocabulary of the embedded model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.tokenization_python import PreTrainedTokenizer
from transformers.utils.generic import PaddingStrategy

from tripletune.models.loading import load_tokenizer
from tripletune.models.sentencepiece_tokenizer import find_width

TEXTS = ["你好", "今天天气怎么样？", "a  b\n\tc", "甲 <sop> 乙[MASK]丙", "[gMASK] </s>", "<n>"]
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_special": {"add_special_tokens": False},
    "longest": {"padding": True},
    "multiple": {"padding": True, "pad_to_multiple_of": 8},
    "max_length": {"padding": "max_length", "max_length": 12, "truncation": True},
    "only_first": {"truncation": "only_first", "max_length": 4},
    "tensors": {"padding": True, "return_tensors": "pt"},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("embedded")


class Counted:
    """Passes everything on to a SentencePiece model and counts the calls of `encode`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        self.num_calls += 1
        return self.model.encode(*args, **kwargs)


def encode_the_librarys_way(tokenizer: Any, texts: list[str], **settings: Any) -> Any:
    names = ("padding", "truncation", "max_length")
    chosen = {name: settings.pop(name) for name in names if name in settings}
    padding, truncation, max_length, _ = tokenizer._get_padding_truncation_strategies(
        **chosen, pad_to_multiple_of=settings.get("pad_to_multiple_of")
    )
    # Ids in place of texts: strings would come back to the quick path.
    ids = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in texts]
    return PreTrainedTokenizer._encode_plus(
        tokenizer,
        ids,
        padding_strategy=padding,
        truncation_strategy=truncation,
        max_length=max_length,
        **settings,
    )


def readable(encoded: Any) -> dict[str, Any]:
    """Arrays and tensors as lists."""
    return {
        name: [v.tolist() if isinstance(v, (np.ndarray, torch.Tensor)) else v for v in values]
        if isinstance(values, list)
        else values.tolist()
        for name, values in encoded.items()
    }


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_batch_is_encoded_as_by_the_library(tokenizer, setting, side, monkeypatch):
    monkeypatch.setattr(tokenizer, "truncation_side", side)
    quick = tokenizer(TEXTS, **SETTINGS[setting])
    assert readable(quick) == readable(
        encode_the_librarys_way(tokenizer, TEXTS, **SETTINGS[setting])
    )


@pytest.mark.parametrize("setting", ["plain", "max_length"])
def test_single_text_is_the_row_of_a_batch(tokenizer, setting):
    batch = readable(tokenizer(TEXTS, **SETTINGS[setting]))
    for index, text in enumerate(TEXTS):
        single = readable(tokenizer(text, **SETTINGS[setting]))
        assert single == {name: values[index] for name, values in batch.items()}


def test_single_text_with_tensors_is_a_batch_of_one(tokenizer):
    assert tokenizer("你好", return_tensors="pt")["input_ids"].tolist() == [
        tokenizer("你好")["input_ids"]
    ]


def test_empty_text_is_its_special_tokens(tokenizer):
    expected = [tokenizer.gmask_token_id, tokenizer.bos_token_id]
    assert tokenizer(["", "好"])["input_ids"][0] == tokenizer("")["input_ids"] == expected


def test_plain_batch_is_one_call_of_sentencepiece(tokenizer, monkeypatch):
    counted = Counted(tokenizer.sp_model)
    monkeypatch.setattr(tokenizer, "sp_model", counted)
    encoded = tokenizer(["你好", "世界", "a  b", "[x] <y>"])
    assert counted.num_calls == 1
    assert encoded["input_ids"] == [
        tokenizer.encode(text) for text in ["你好", "世界", "a  b", "[x] <y>"]
    ]


def test_attention_mask_can_be_left_out(tokenizer):
    encoded = tokenizer(["你好", "x"], padding=True, return_attention_mask=False)
    assert list(encoded) == ["input_ids", "position_ids"]


@pytest.mark.parametrize(
    ("strategy", "max_length", "multiple", "width"),
    [
        (PaddingStrategy.DO_NOT_PAD, 9, 8, 0),
        (PaddingStrategy.LONGEST, None, None, 3),
        (PaddingStrategy.LONGEST, None, 4, 4),
        (PaddingStrategy.MAX_LENGTH, 9, None, 9),
        (PaddingStrategy.MAX_LENGTH, 9, 8, 16),
    ],
)
def test_width_follows_the_strategy(strategy, max_length, multiple, width):
    assert find_width([[1], [1, 2, 3]], strategy, max_length, multiple) == width


def test_vocabulary_is_copied_but_not_onto_itself(tokenizer, tmp_path):
    (path,) = tokenizer.save_vocabulary(str(tmp_path), "copy")
    assert path == str(tmp_path / "copy-ice_text.model")
    with open(path, "rb") as copy, open(tokenizer.vocab_file, "rb") as original:
        assert copy.read() == original.read()
    again = type(tokenizer)(path)
    (same,) = again.save_vocabulary(str(tmp_path), "copy")
    assert same == path
