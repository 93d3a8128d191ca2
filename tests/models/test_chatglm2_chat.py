from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from tripletune.errors import DataError
from tripletune.models.chatglm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration
from tripletune.models.chatglm2_chat import parse_tool_call
from tripletune.models.tokenization_chatglm2 import ChatGLM2Tokenizer, ChatGLM3Tokenizer

USER, OBSERVATION = 64795, 64797
TOOLS = {"role": "system", "content": "用工具", "tools": [{"name": "weather"}]}


class Scripted(LogitsProcessor):
    """Makes the model write the given ids, whatever it would have written."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = iter(ids)

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, float("-inf"))
        scores[:, next(self.ids)] = 0.0
        return scores


@pytest.fixture(scope="module")
def model() -> ChatGLM2ForConditionalGeneration:
    torch.manual_seed(0)
    config = ChatGLM2Config(
        num_layers=1,
        hidden_size=8,
        ffn_hidden_size=8,
        kv_channels=4,
        num_attention_heads=2,
        multi_query_group_num=1,
        initializer_range=0.5,
    )
    return ChatGLM2ForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def second(shared_dir: Path) -> ChatGLM2Tokenizer:
    return ChatGLM2Tokenizer.from_pretrained(shared_dir / "tokenizers/chatglm2-6b")


@pytest.fixture(scope="module")
def third(shared_dir: Path) -> ChatGLM3Tokenizer:
    return ChatGLM3Tokenizer.from_pretrained(shared_dir / "tokenizers/chatglm3-6b")


def say(ids: list[int], **kwargs: Any) -> dict[str, Any]:
    return {"logits_processor": LogitsProcessorList([Scripted(ids)]), "do_sample": False, **kwargs}


def test_second_generation_answer_and_history(model, second):
    history = [("一", "二")]
    answer = [*second.encode_plain(" 今年是[[训练时间]]！\n"), 2]
    assert model.chat(second, "三", history, **say(answer)) == (
        "今年是2023年！",
        [("一", "二"), ("三", "今年是2023年！")],
    )
    assert history == [("一", "二")]


def test_greedy_answer_is_what_generate_gives(model, second):
    prompt = torch.tensor([second.build_chat_ids("你好")])
    output = model.generate(prompt, max_new_tokens=4, do_sample=False)[0, prompt.shape[1] :]
    response, _ = model.chat(second, "你好", do_sample=False, max_new_tokens=4)
    assert response == second.decode_chat(output.tolist())


def test_sampling_is_the_default(model, second):
    torch.manual_seed(1)
    prompt = torch.tensor([second.build_chat_ids("你好")])
    settings = {"do_sample": True, "top_p": 0.8, "temperature": 0.8, "max_new_tokens": 4}
    output = model.generate(prompt, **settings)[0, prompt.shape[1] :]
    torch.manual_seed(1)
    assert model.chat(second, "你好", max_new_tokens=4)[0] == second.decode_chat(output.tolist())


def test_second_generation_streams_growing_answers(model, second):
    answer = [*second.encode_plain("你好世界ݒ"), 2]
    seen = [response for response, _ in model.stream_chat(second, "一", **say(answer))]
    assert seen == ["你好"[:1], "你好", "你好世界", "你好世界ݒ"]


def test_stream_ends_with_what_chat_returns(model, second):
    settings = {"do_sample": False, "max_new_tokens": 5}
    *_, last = model.stream_chat(second, "你好", **settings)
    assert last == model.chat(second, "你好", **settings)


def test_cached_history_gives_the_same_answer(model, second):
    first_answer = [39701, 2]  # 你好 as a continuation
    *_, (_, history, cache) = model.stream_chat(
        second, "一", return_past_key_values=True, **say(first_answer)
    )
    assert history == [("一", "你好")]
    settings = {"do_sample": False, "max_new_tokens": 6}
    *_, (response, _, cache) = model.stream_chat(
        second, "二", history, cache, return_past_key_values=True, **settings
    )
    assert (response, [*history, ("二", response)]) == model.chat(second, "二", history, **settings)
    # Every token but the last is cached: nothing was computed twice.
    assert cache.get_seq_length() == len(second.build_chat_ids("二", history)) + 5


def test_third_generation_answer_and_history(model, third):
    answer = [30910, 13, *third.encode_plain("你好！"), USER]
    response, history = model.chat(third, "一", [], **say(answer))
    assert response == "你好！"
    assert history == [
        {"role": "user", "content": "一"},
        {"role": "assistant", "metadata": "", "content": "你好！"},
    ]


def test_third_generation_without_a_metadata_line(model, third):
    answer = [*third.encode_plain("你好"), 2]
    assert model.chat(third, "一", **say(answer))[0] == "你好"
    assert [r for r, _ in model.stream_chat(third, "一", **say(answer))] == ["你好"]


def test_third_generation_reads_a_tool_call(model, third):
    code = "weather\n ```python\ntool_call(city='上海')\n```"
    response, history = model.chat(
        third, "天气？", [TOOLS], **say([*third.encode_plain(code), OBSERVATION])
    )
    assert response == {"name": "weather", "parameters": {"city": "上海"}}
    assert history[-1]["metadata"] == "weather"
    assert history[0] is TOOLS


def test_third_generation_metadata_without_declared_tools(model, third):
    code = [*third.encode_plain("interpreter\nprint(1)"), OBSERVATION]
    response, _ = model.chat(third, "算", **say(code))
    assert response == {"name": "interpreter", "content": "print(1)"}


def test_third_generation_keeps_a_call_that_is_none_as_text(model, third):
    code = [*third.encode_plain("weather\ntool_call(city=open('x'))"), OBSERVATION]
    response, _ = model.chat(third, "天气？", [TOOLS], **say(code))
    assert response == {"name": "weather", "content": "tool_call(city=open('x'))"}


def test_third_generation_takes_a_tool_result(model, third):
    answer = [30910, 13, *third.encode_plain("晴"), 2]
    history = [TOOLS, {"role": "user", "content": "天气？"}]
    response, history = model.chat(third, "晴", history, role="observation", **say(answer))
    assert response == "晴"
    assert history[2] == {"role": "observation", "content": "晴"}


def test_third_generation_answer_cut_by_length_keeps_its_last_token(model, third):
    answer = [30910, 13, *third.encode_plain("你好")]
    response, _ = model.chat(third, "一", **say(answer, max_new_tokens=len(answer)))
    assert response == "你好"


def test_third_generation_streams_after_the_metadata_line(model, third):
    answer = [30910, 13, *third.encode_plain("你好世界"), USER]
    seen = [response for response, _ in model.stream_chat(third, "一", **say(answer))]
    assert seen == ["你", "你好", "你好世界"]


def test_third_generation_cached_history_gives_the_same_answer(model, third):
    answer = [30910, 13, *third.encode_plain("你好"), USER]
    *_, (_, history, cache) = model.stream_chat(
        third, "一", return_past_key_values=True, **say(answer)
    )
    settings = {"do_sample": False, "max_new_tokens": 6}
    *_, (response, _, _) = model.stream_chat(
        third, "二", history, cache, return_past_key_values=True, **settings
    )
    assert response == model.chat(third, "二", history, **settings)[0]


def test_second_generation_knows_no_roles(model, second):
    with pytest.raises(DataError, match="role: 'observation' needs ChatGLM3"):
        model.chat(second, "一", role="observation")


def test_second_generation_refuses_messages(model, second):
    with pytest.raises(DataError, match=r"\{'role': 'user'\} is no \(query, answer\) pair"):
        model.chat(second, "一", [{"role": "user"}])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\ntool_call(a=1, b=['x'])\n```", {"a": 1, "b": ["x"]}),
        ("tool_call()", {}),
        ("tool_call(1)", None),
        ("tool_call(a=f())", None),
        ("a = 1", None),
        ("", None),
    ],
)
def test_parse_tool_call_reads_literals_only(text, expected):
    assert parse_tool_call(text) == expected
