"""UIE lines: `{"content", "result_list": [{"text", "start", "end"}], "prompt"}`.

A prompt is an entity type (企业) or `<subject>的<relation>`. Only the latter say anything about
triplets; the records of one text are joined by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tripletune.data.readers.annotation import build_span
from tripletune.data.readers.fields import (
    add_triplet,
    build_example,
    get_list,
    get_mapping,
    get_text,
)
from tripletune.data.readers.problem import Problems, RecordFault, shorten
from tripletune.schema import Example, Span, Triplet

__all__ = ["parse_uie_record"]

_OF = "的"


def parse_uie_record(record: Mapping[str, Any], problems: Problems) -> Iterator[Example]:
    """The triplets that one prompt found in its text; nothing for an entity prompt.

    Entity prompts say nothing about relations, so a text that has no other prompt gives no
    example; each is reported as a change, since no label is lost.
    """
    text, prompt = get_text(record, "content"), get_text(record, "prompt")
    results = get_list(record, "result_list")
    found = _split_prompt(prompt, text)
    if found is None:
        problems.tallies["entity prompts"] += 1
        problems.change(
            "entity_prompt", f"prompt {shorten(prompt)} asks for entities, not for a relation"
        )
        return
    subject, relation = found
    triplets: list[Triplet] = []
    for result in results:
        try:
            result = get_mapping(result, "result_list entry")
            name = get_text(result, "text")
            span = _read_span(result, name, text, problems)
        except RecordFault as fault:
            problems.drop_triplet(fault.reason, fault.message, value=result)
            continue
        add_triplet(triplets, problems, subject, relation, name, object_span=span)
    yield build_example(problems, text, triplets)


def _split_prompt(prompt: str, text: str) -> tuple[str, str] | None:
    """Subject and relation, split at the last 的 that leaves a subject of the text if any does."""
    places = [place for place, character in enumerate(prompt) if character == _OF]
    places = [place for place in places if prompt[:place].strip() and prompt[place + 1 :].strip()]
    if not places:
        return None
    in_text = [place for place in places if prompt[:place] in text]
    place = (in_text or places)[-1]
    return prompt[:place], prompt[place + 1 :]


def _read_span(result: Mapping[str, Any], name: str, text: str, problems: Problems) -> Span | None:
    try:
        span = build_span(result.get("start"), result.get("end"), text)
    except RecordFault as fault:
        problems.change(fault.reason, f"span left out: {fault.message}", value=result)
        return None
    if text[span.start : span.end] != name:
        problems.change(
            "offset_mismatch",
            f"span left out: [{span.start}, {span.end}) holds "
            f"{shorten(text[span.start : span.end])}, not {shorten(name)}",
            value=result,
        )
        return None
    return span
