"""`model.chat` and `model.stream_chat` of ChatGLM2 and ChatGLM3, with the official signatures.

The two generations share a network and differ in how they converse; which form is used follows
from the tokenizer:

- ChatGLM2: rounds of plain text; the history is a list of (query, answer) pairs.
- ChatGLM3: messages with a role; the history is a list of mappings with `role`, `content` and,
  where they apply, `metadata` (the first line of an answer: the name of a tool it calls, or empty)
  and `tools` (in a system message).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.logits_process import LogitsProcessorList

from tripletune.errors import DataError
from tripletune.models.sdpa import without_cudnn_attention
from tripletune.models.streaming import iter_generated_ids
from tripletune.models.tokenization_chatglm2 import (
    ChatGLM2Tokenizer,
    ChatGLM3Tokenizer,
    read_messages,
)

__all__ = ["ChatGLM2ChatMixin", "parse_tool_call"]

_INCOMPLETE_CHARACTER = "\ufffd"


class ChatGLM2ChatMixin:
    """Adds the official chat methods to a model that can generate."""

    def chat(
        self,
        tokenizer: ChatGLM2Tokenizer,
        query: str,
        history: Sequence[Any] | None = None,
        max_length: int = 8192,
        num_beams: int = 1,
        do_sample: bool = True,
        top_p: float = 0.8,
        temperature: float = 0.8,
        logits_processor: LogitsProcessorList | None = None,
        *,
        role: str = "user",
        **kwargs: Any,
    ) -> tuple[Any, list[Any]]:
        """The answer to `query`, and the history with this turn added.

        The defaults are the official ones and sample; for extraction pass `do_sample=False`.

        Args:
            tokenizer: The model's own tokenizer.
            query: What is said.
            history: Earlier turns, as returned by the call before; not changed.
            max_length: Prompt and answer together, in tokens; not used with `max_new_tokens`.
            num_beams: As `generate`.
            do_sample: As `generate`.
            top_p: As `generate`; used when sampling.
            temperature: As `generate`; used when sampling.
            logits_processor: As `generate`.
            role: Who says it; `observation` for the result of a tool. ChatGLM3 only.
            **kwargs: Passed to `generate`.

        Returns:
            The answer: text, or for a ChatGLM3 answer with metadata a mapping with `name` and
            `parameters` (a call of a declared tool) or `content`. And the new history.

        Raises:
            DataError: a role or history that the tokenizer's generation does not have.
        """
        conversation = open_conversation(tokenizer, query, history, role)
        if do_sample:
            kwargs |= {"top_p": top_p, "temperature": temperature}
        if "max_new_tokens" not in kwargs:
            kwargs["max_length"] = max_length
        kwargs.setdefault("eos_token_id", conversation.stop_ids)
        device = self.device  # type: ignore[attr-defined]
        input_ids = torch.tensor([conversation.prompt_ids], device=device)
        with torch.inference_mode(), without_cudnn_attention():
            output_ids = self.generate(  # type: ignore[attr-defined]
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                num_beams=num_beams,
                do_sample=do_sample,
                logits_processor=logits_processor,
                **kwargs,
            )
        return conversation.close(output_ids[0, input_ids.shape[1] :].tolist())

    def stream_chat(
        self,
        tokenizer: ChatGLM2Tokenizer,
        query: str,
        history: Sequence[Any] | None = None,
        past_key_values: Cache | None = None,
        max_length: int = 8192,
        do_sample: bool = True,
        top_p: float = 0.8,
        temperature: float = 0.8,
        logits_processor: LogitsProcessorList | None = None,
        return_past_key_values: bool = False,
        *,
        role: str = "user",
        **kwargs: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Yields the answer so far and the history with it, whenever the answer has grown.

        Takes the arguments of `chat`, except `num_beams`, and two more. An error while generating
        is raised here, after the tokens before it.

        Args:
            tokenizer: See `chat`, as for the arguments not listed here.
            query: See there.
            history: See there.
            past_key_values: The cache of the history, as yielded by the call before: only the
                newest turn is computed then.
            max_length: See there; cached tokens count.
            do_sample: See there.
            top_p: See there.
            temperature: See there.
            logits_processor: See there.
            return_past_key_values: Whether to yield the cache as a third element.
            role: See there.
            **kwargs: See there.
        """
        conversation = open_conversation(tokenizer, query, history, role)
        cached = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        new_ids = conversation.next_ids if cached else conversation.prompt_ids
        # `generate` wants an id for each cached token; it feeds the model the rest only.
        input_ids = torch.tensor([[0] * cached + new_ids], device=self.device)  # type: ignore[attr-defined]
        if past_key_values is None:
            past_key_values = DynamicCache(config=self.config)  # type: ignore[attr-defined]
        if do_sample:
            kwargs |= {"top_p": top_p, "temperature": temperature}
        if "max_new_tokens" not in kwargs:
            kwargs["max_length"] = max_length
        kwargs.setdefault("eos_token_id", conversation.stop_ids)
        answer: list[int] = []
        shown: Any = None
        for token in iter_generated_ids(
            self,
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            past_key_values=past_key_values,
            do_sample=do_sample,
            logits_processor=logits_processor,
            **kwargs,
        ):
            answer.append(token)
            grown = conversation.read(answer)
            if grown is not None and grown != shown:
                shown = grown
                yield (*grown, past_key_values) if return_past_key_values else grown
        closed = conversation.close(answer)
        if closed != shown:
            yield (*closed, past_key_values) if return_past_key_values else closed


class Conversation(Protocol):
    """A conversation up to a query, ready for the answer.

    Attributes:
        prompt_ids: The whole prompt.
        next_ids: What of it comes after the history.
        stop_ids: Ids that end an answer.
    """

    prompt_ids: list[int]
    next_ids: list[int]
    stop_ids: list[int]

    def read(self, answer_ids: list[int]) -> tuple[Any, list[Any]] | None:
        """An unfinished answer and the history with it, or None when there is none to show."""
        ...

    def close(self, answer_ids: list[int]) -> tuple[Any, list[Any]]:
        """The finished answer and the history with it."""
        ...


def open_conversation(
    tokenizer: ChatGLM2Tokenizer, query: str, history: Sequence[Any] | None, role: str
) -> Conversation:
    """The conversation in the form of the tokenizer's generation.

    Raises:
        DataError: a role or history that this generation does not have.
    """
    if isinstance(tokenizer, ChatGLM3Tokenizer):
        return _Messages(tokenizer, query, history or (), role)
    if role != "user":
        raise DataError(f"role: {role!r} needs ChatGLM3; ChatGLM2 knows only 'user'")
    return _Rounds(tokenizer, query, history or ())


class _Rounds:
    """ChatGLM2: numbered rounds of plain text."""

    def __init__(self, tokenizer: ChatGLM2Tokenizer, query: str, history: Sequence[Any]) -> None:
        for item in history:
            if not (isinstance(item, (tuple, list)) and len(item) == 2):
                raise DataError(f"history: {item!r} is no (query, answer) pair, as ChatGLM2 has")
        self._tokenizer = tokenizer
        self._query = query
        self._history = [tuple(item) for item in history]
        self.prompt_ids = tokenizer.build_chat_ids(query, self._history)
        self.next_ids = tokenizer.build_next_chat_ids(query, self._history)
        self.stop_ids = [tokenizer.eos_token_id]

    def read(self, answer_ids: list[int]) -> tuple[str, list[Any]] | None:
        answer, history = self.close(answer_ids)
        if not answer or answer.endswith(_INCOMPLETE_CHARACTER):
            return None
        return answer, history

    def close(self, answer_ids: list[int]) -> tuple[str, list[Any]]:
        answer = self._tokenizer.decode_chat(answer_ids)
        return answer, [*self._history, (self._query, answer)]


class _Messages:
    """ChatGLM3: messages with a role."""

    def __init__(
        self, tokenizer: ChatGLM3Tokenizer, query: str, history: Sequence[Any], role: str
    ) -> None:
        self._tokenizer = tokenizer
        self._history = [*read_messages(history), {"role": role, "content": query}]
        self._has_tools = self._history[0]["role"] == "system" and "tools" in self._history[0]
        self.prompt_ids = tokenizer.build_chat_ids(query, history, role=role)
        # The history's cache ends before the token that ended its last answer.
        self.next_ids = tokenizer.build_next_chat_ids(query, (), role=role)
        commands = ("<|user|>", "<|observation|>")
        self.stop_ids = [tokenizer.eos_token_id, *map(tokenizer.get_command, commands)]

    def read(self, answer_ids: list[int]) -> tuple[Any, list[Any]] | None:
        text = self._decode(answer_ids)
        # Before the first line feed it is open whether this is metadata or an answer.
        if "\n" not in text or text.endswith(_INCOMPLETE_CHARACTER):
            return None
        answer, history = self.close(answer_ids)
        return (answer, history) if answer else None

    def close(self, answer_ids: list[int]) -> tuple[Any, list[Any]]:
        """Reads what may be several messages: one with metadata, then one without."""
        answer: Any = ""
        history = list(self._history)
        for text in self._decode(answer_ids).split("<|assistant|>"):
            metadata, _, content = text.partition("\n") if "\n" in text else ("", "", text)
            content = content if metadata.strip() else content.strip()
            history.append({"role": "assistant", "metadata": metadata, "content": content})
            if not metadata.strip():
                answer = content.replace("[[训练时间]]", "2023年")
                continue
            call = parse_tool_call(content) if self._has_tools else None
            result = {"content": content} if call is None else {"parameters": call}
            answer = {"name": metadata.strip(), **result}
        return answer, history

    def _decode(self, answer_ids: list[int]) -> str:
        ended = bool(answer_ids) and answer_ids[-1] in self.stop_ids
        return str(self._tokenizer.decode(answer_ids[:-1] if ended else answer_ids))


def parse_tool_call(text: str) -> dict[str, Any] | None:
    """The named arguments of the one call that a block of code consists of, as ChatGLM3 writes it.

    Only literals are read and nothing is executed. None when the text is anything else.

    Example:
        >>> parse_tool_call("tool_call(city='上海', days=3)")
        {'city': '上海', 'days': 3}
    """
    lines = text.strip().splitlines()
    if len(lines) >= 2 and lines[0].startswith("```") and lines[-1].startswith("```"):
        lines = lines[1:-1]
    try:
        call = ast.parse("\n".join(lines).strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords if k.arg is not None}
    except (SyntaxError, ValueError):
        return None
