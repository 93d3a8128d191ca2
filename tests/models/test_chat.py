from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from tripletune.models.loading import load_model_and_tokenizer


class Scripted(LogitsProcessor):
    """Makes the model write the given ids, whatever it would have written."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = iter(ids)

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, float("-inf"))
        scores[:, next(self.ids)] = 0.0
        return scores


@pytest.fixture(scope="module")
def loaded(tiny_model_dir) -> tuple[Any, Any]:
    return load_model_and_tokenizer(str(tiny_model_dir), quantize=False, device="cpu")


def say(tokenizer: Any, text: str) -> dict[str, Any]:
    ids = [*tokenizer.encode_plain(text), tokenizer.eos_token_id]
    return {"logits_processor": LogitsProcessorList([Scripted(ids)]), "do_sample": False}


def test_answer_and_history(loaded):
    model, tokenizer = loaded
    history = [("一", "二")]
    answer, grown = model.chat(tokenizer, "三", history, **say(tokenizer, " 你好,世界! "))
    assert answer == "你好，世界！"
    assert grown == [("一", "二"), ("三", "你好，世界！")]
    assert history == [("一", "二")]


def test_greedy_answer_is_what_generate_gives_to_the_official_prompt(loaded):
    model, tokenizer = loaded
    prompt = "[Round 0]\n问：一\n答：二\n[Round 1]\n问：三\n答："
    ids = torch.tensor([tokenizer.encode(prompt)])
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)[0, ids.shape[1] :]
    answer, _ = model.chat(tokenizer, "三", [("一", "二")], do_sample=False, max_new_tokens=5)
    assert answer == tokenizer.decode_chat(expected.tolist())


def test_sampling_with_the_official_settings_is_the_default(loaded):
    model, tokenizer = loaded
    ids = torch.tensor([tokenizer.encode("你好")])
    settings = {"do_sample": True, "top_p": 0.7, "temperature": 0.95, "max_new_tokens": 5}
    torch.manual_seed(1)
    expected = model.generate(ids, **settings)[0, ids.shape[1] :]
    torch.manual_seed(1)
    assert model.chat(tokenizer, "你好", max_new_tokens=5)[0] == tokenizer.decode_chat(
        expected.tolist()
    )


def test_length_counts_prompt_and_answer(loaded):
    model, tokenizer = loaded
    num_prompt = len(tokenizer.encode("你好"))
    answer = model.chat(tokenizer, "你好", do_sample=False, max_length=num_prompt + 3)[0]
    assert answer == model.chat(tokenizer, "你好", do_sample=False, max_new_tokens=3)[0]


def test_stream_grows_to_what_chat_returns(loaded):
    model, tokenizer = loaded
    *_, last = model.stream_chat(tokenizer, "你好", do_sample=False, max_new_tokens=5)
    assert last == model.chat(tokenizer, "你好", do_sample=False, max_new_tokens=5)


def test_stream_yields_once_for_each_token(loaded):
    model, tokenizer = loaded
    text = "你好世界"
    num_tokens = len(tokenizer.encode_plain(text)) + 1
    seen = list(model.stream_chat(tokenizer, "一", [("甲", "乙")], **say(tokenizer, text)))
    assert len(seen) == num_tokens
    assert all(later[0].startswith(earlier[0]) for earlier, later in pairwise(seen))
    assert seen[-1] == (text, [("甲", "乙"), ("一", text)])


def test_stream_left_early_stops_generating(loaded):
    model, tokenizer = loaded
    stream = model.stream_chat(tokenizer, "你好", do_sample=False, max_length=400, eos_token_id=-1)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "generate"]


def test_stream_raises_what_generating_raises(loaded):
    model, tokenizer = loaded

    class Broken(LogitsProcessor):
        def __call__(self, input_ids, scores):
            raise MemoryError("no more")

    stream = model.stream_chat(
        tokenizer, "你好", do_sample=False, logits_processor=LogitsProcessorList([Broken()])
    )
    with pytest.raises(MemoryError, match="no more"):
        next(stream)
