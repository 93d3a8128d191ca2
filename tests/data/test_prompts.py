from __future__ import annotations

from tripletune.data.prompts import encode_answer, encode_prompt, find_end_token_id, render_query


class PlainTokenizer:
    """A tokenizer as `transformers` has them, without a chat template."""

    eos_token_id = 2
    chat_template = None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": ([0] if add_special_tokens else []) + [*map(ord, text)]}


class ChatTokenizer(PlainTokenizer):
    """Turns end with <end> (code point 9), which is not the eos token."""

    chat_template = "present"
    all_special_ids = (2, 9)

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt=False):
        assert tokenize is False
        text = "".join(f"{m['role']}:{m['content']}\x09" for m in messages)
        return text + ("assistant:" if add_generation_prompt else "")


def test_query_lists_relations():
    expected = "请从以下文本中抽取三元组，格式为(主体, 关系, 客体)，关系限于位于、作者:\n甲"
    assert render_query("甲", relations=["位于", "作者"]) == expected


def test_query_keeps_braces_of_the_text():
    assert render_query("{x} {0}").endswith("\n{x} {0}")


def test_prompt_without_chat_template_is_the_query_on_a_line():
    assert encode_prompt(PlainTokenizer(), "甲") == [0, ord("甲"), ord("\n")]


def test_prompt_with_chat_template_opens_the_answer():
    assert encode_prompt(ChatTokenizer(), "甲") == [*map(ord, "user:甲\x09assistant:")]


def test_end_token_is_what_the_template_puts_behind_an_answer():
    assert find_end_token_id(ChatTokenizer()) == 9
    assert find_end_token_id(PlainTokenizer()) == 2
    assert encode_answer(ChatTokenizer(), "无") == [ord("无"), 9]
