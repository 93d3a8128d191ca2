"""From examples to token ids, with nothing cut off unsaid.

```
input_ids   prompt … [gMASK] <sop> | ( 甲 , 位于 , 乙 ) <eop>
labels      -100 …             -100 | ( 甲 , 位于 , 乙 ) <eop>
```

A target is never cut: without its end token a model learns not to stop. What does not fit is
dropped or has its text shortened, by a named policy, and is counted. A target names each triplet
once, in the order of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tripletune.data.linearize import arrange_triplets, render_target
from tripletune.data.prompts import encode_answer, encode_prompt, render_query
from tripletune.schema import Example

__all__ = ["EncodingReport", "LongTextPolicy", "TokenizedExample", "encode_examples"]

LongTextPolicy = Literal["drop", "shorten"]
_SENTENCE_END = re.compile(r"[。！？!?；;\n]+[”」』）)]*")


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Token ids of one example: prompt, answer and end token.

    Attributes:
        input_ids: All ids.
        num_prompt_tokens: How many of them are the prompt; the rest are labels.
    """

    input_ids: list[int]
    num_prompt_tokens: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def labels(self) -> list[int]:
        """`input_ids` with -100 in place of the prompt."""
        return [-100] * self.num_prompt_tokens + self.input_ids[self.num_prompt_tokens :]


@dataclass(slots=True)
class EncodingReport:
    """How many examples were encoded, and what happened to the others.

    Attributes:
        num_examples: Examples seen.
        num_kept: Examples encoded, shortened ones included.
        num_long_targets: Dropped, because the target has more than `max_target_tokens`.
        num_long_texts: Dropped, because the prompt has more than `max_source_tokens`.
        num_shortened: Kept with a shortened text.
        num_repeated: Triplets left out of the answers, because these have the same already.
        dropped: Index of each dropped example.
    """

    num_examples: int = 0
    num_kept: int = 0
    num_long_targets: int = 0
    num_long_texts: int = 0
    num_shortened: int = 0
    num_repeated: int = 0
    dropped: list[int] = field(default_factory=list)


def encode_examples(
    examples: Iterable[Example],
    tokenizer: Any,
    *,
    max_source_tokens: int,
    max_target_tokens: int,
    long_texts: LongTextPolicy = "drop",
    relations: Iterable[Sequence[str]] | None = None,
) -> tuple[list[TokenizedExample], EncodingReport]:
    """Token ids of every example that fits, and the count of those that do not.

    Args:
        examples: What to encode.
        tokenizer: The model's tokenizer.
        max_source_tokens: Longest prompt, special tokens included.
        max_target_tokens: Longest answer, end token included.
        long_texts: What to do when a prompt is too long: `drop` the example, or `shorten` its text
            to the sentences that fit, keeping the triplets that still stand in them.
        relations: Names to list in the prompt of each example, as many as there are examples.
    """
    encoded: list[TokenizedExample] = []
    report = EncodingReport()
    pairs = (
        ((e, None) for e in examples)
        if relations is None
        else zip(examples, relations, strict=True)
    )
    for index, (example, names) in enumerate(pairs):
        report.num_examples += 1
        prompt = _encode_query(tokenizer, example.text, names)
        if len(prompt) > max_source_tokens and long_texts == "shorten":
            shorter = _shorten(example, tokenizer, max_source_tokens, names)
            if shorter is not None:
                example = shorter
                prompt = _encode_query(tokenizer, example.text, names)
                report.num_shortened += 1
        triplets = arrange_triplets(example.text, example.triplets)
        report.num_repeated += len(example.triplets) - len(triplets)
        answer = encode_answer(tokenizer, render_target(triplets))
        if len(prompt) > max_source_tokens:
            report.num_long_texts += 1
            report.dropped.append(index)
        elif len(answer) > max_target_tokens:
            report.num_long_targets += 1
            report.dropped.append(index)
        else:
            encoded.append(TokenizedExample(prompt + answer, len(prompt)))
    report.num_kept = len(encoded)
    return encoded, report


def _encode_query(tokenizer: Any, text: str, relations: Sequence[str] | None) -> list[int]:
    return encode_prompt(tokenizer, render_query(text, relations=relations))


def _shorten(
    example: Example, tokenizer: Any, max_source_tokens: int, relations: Sequence[str] | None
) -> Example | None:
    """The longest run of whole opening sentences whose prompt fits, or None when not even one."""
    ends = [match.end() for match in _SENTENCE_END.finditer(example.text)]
    for end in reversed(ends):
        text = example.text[:end]
        if len(_encode_query(tokenizer, text, relations)) <= max_source_tokens:
            kept = tuple(t for t in example.triplets if t.subject in text and t.object in text)
            return Example(text, kept, example.id)
    return None
