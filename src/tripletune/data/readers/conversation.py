"""Chat files: `messages`, ShareGPT `conversations`, and single prompt and response pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tripletune.data.readers.answer import parse_answer, take_relation_names
from tripletune.data.readers.fields import build_example, get_field, get_list, get_mapping, get_text
from tripletune.data.readers.instruction import split_prompt
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example

__all__ = ["parse_messages_record", "parse_prompt_record", "parse_sharegpt_record"]

_ASKING = frozenset({"user", "human", "prompter"})
_ANSWERING = frozenset({"assistant", "gpt", "chatgpt", "bot", "model"})
_SILENT = frozenset({"system", "observation", "tool", "function"})


def parse_messages_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """One example for each user message and the answer after it, in `{"messages": [...]}`."""
    yield from _parse_turns(record, problems, "messages", "role", "content")


def parse_sharegpt_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """One example for each human turn and its answer, in ShareGPT's `{"conversations": [...]}`."""
    yield from _parse_turns(record, problems, "conversations", "from", "value")


def parse_prompt_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The example of `{"prompt", "response"}` (or `completion`), question and text in one."""
    answer = "response" if "response" in record else "completion"
    prompt, reply = get_text(record, "prompt"), get_text(record, answer)
    yield _build(problems, prompt, reply, record.get("id"))


def _parse_turns(
    record: Mapping[str, Any], problems: Problems, field: str, speaker: str, content: str
) -> Iterator[Example]:
    question: str | None = None
    num_pairs = 0
    for turn in get_list(record, field):
        turn = get_mapping(turn, f"{field} entry")
        role, text = get_field(turn, speaker), get_text(turn, content)
        if isinstance(role, str) and role in _ASKING:
            question = text
        elif isinstance(role, str) and role in _ANSWERING and question is not None:
            yield _build(problems, question, text, record.get("id") if not num_pairs else None)
            question = None
            num_pairs += 1
        elif not isinstance(role, str) or role not in _SILENT:
            raise RecordFault(
                "wrong_turn",
                f"{field}: a turn of {shorten(role)} stands where none is expected; needed are a "
                "user turn and then an assistant turn",
                value=turn,
            )
    if num_pairs == 0:
        raise RecordFault("wrong_turn", f"{field}: no user turn with an answer after it")


def _build(problems: Problems, prompt: str, answer: str, identifier: object) -> Example:
    question, text = split_prompt(prompt)
    triplets = parse_answer(answer, problems, relations=take_relation_names(question))
    return build_example(problems, text, triplets, identifier)
