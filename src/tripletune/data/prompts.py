"""The prompt: one wording for training, extraction, evaluation and chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["encode_answer", "encode_prompt", "find_end_token_id", "render_query"]

QUERY = "请从以下文本中抽取三元组，格式为(主体, 关系, 客体):\n{text}"
QUERY_WITH_RELATIONS = (
    "请从以下文本中抽取三元组，格式为(主体, 关系, 客体)，关系限于{relations}:\n{text}"
)


def render_query(text: str, *, relations: Sequence[str] | None = None) -> str:
    r"""What the user says to the model to have the triplets of `text`.

    Args:
        text: The text to read.
        relations: Names to choose from; given to models trained with a schema in the prompt.

    Example:
        >>> render_query("甲位于乙。")
        '请从以下文本中抽取三元组，格式为(主体, 关系, 客体):\n甲位于乙。'
    """
    if relations is None:
        return QUERY.format(text=text)
    return QUERY_WITH_RELATIONS.format(relations="、".join(relations), text=text)


def encode_prompt(tokenizer: Any, query: str) -> list[int]:
    """Token ids of the whole prompt, up to where the answer begins.

    ChatGLM tokenizers render their own conversation form, any other tokenizer its chat template;
    one without a template gets its opening token and the query on a line of its own. Special
    tokens written in the query are plain text wherever the tokenizer can tell them apart.
    """
    if hasattr(tokenizer, "build_prompt_ids"):
        ids: list[int] = tokenizer.build_prompt_ids(query)
        return ids
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": query}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(query + "\n")["input_ids"])


def encode_answer(tokenizer: Any, target: str) -> list[int]:
    """Token ids of the target text, closed by the token that ends an answer."""
    if hasattr(tokenizer, "encode_plain"):
        ids = list(tokenizer.encode_plain(target))
    else:
        ids = list(tokenizer(target, add_special_tokens=False)["input_ids"])
    return [*ids, find_end_token_id(tokenizer)]


def find_end_token_id(tokenizer: Any) -> int:
    """The token a model writes when its answer is complete.

    With a chat template this is the first special token the template puts behind an answer (which
    need not be `eos_token`); otherwise it is `eos_token`.
    """
    if not hasattr(tokenizer, "build_prompt_ids") and getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": "甲"}, {"role": "assistant", "content": "乙"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text[text.rindex("乙") + 1 :], add_special_tokens=False)["input_ids"]
        special = set(tokenizer.all_special_ids)
        for index in ids:
            if index in special:
                return int(index)
    return int(tokenizer.eos_token_id)
