"""Generation for many prompts, over token ids; it knows nothing about text.

The likeliest token is written; or, for rows with a seed, one drawn from those that are allowed.

Two ways, with the same result:

- `batch`: prompts of similar length are read together; rows that are finished leave the batch,
  and tokens that a guide leaves no choice about are read several at a time. Any causal model.
- `slots`: the places of finished rows are taken by the next prompts (`SlotReader`), and guides work
  while the model does. For many prompts.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from tripletune.errors import ConfigError
from tripletune.extraction.batch_reader import BatchReader, evaluation
from tripletune.extraction.generate_in_slots import generate_in_slots
from tripletune.extraction.generation_rows import (
    Generated,
    GenerationMethod,
    GenerationOptions,
    OnToken,
    Row,
    TokenGuide,
    choose_for_rows,
    prepare_guides,
)
from tripletune.extraction.slot_memory import count_prompt_tokens, count_slots, find_room
from tripletune.extraction.slot_reader import supports_slots

__all__ = [
    "Generated",
    "GenerationMethod",
    "GenerationOptions",
    "TokenGuide",
    "generate_greedy",
    "iter_greedy",
]


def generate_greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    guides: Sequence[TokenGuide] | None = None,
    limits: Sequence[int] | None = None,
    on_token: OnToken | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Generated]:
    """What the model writes after each prompt, in the order of the prompts.

    Args:
        model: A causal language model of `transformers` or this package, on any device.
        prompts: Token ids of each prompt, at least one each.
        options: How to generate.
        guides: One for each prompt; None allows every token.
        limits: Longest answer to each prompt, end token included. None: `options.max_new_tokens`.
        on_token: Called with the prompt's index, the token and its log-probability as they come,
            the end token included, when the guide has taken note of it.
        seeds: One for each prompt: its tokens are drawn, in proportion to how likely they are among
            those that its guide allows. None: the likeliest are taken.

    Raises:
        ConfigError: a prompt is empty, `slots` is asked for with a model that has a sliding window
            or takes no positions, or there are seeds but no guides.
    """
    results: dict[int, Generated] = dict(
        iter_greedy(
            model, prompts, options,
            guides=guides, limits=limits, on_token=on_token, seeds=seeds,
        )
    )  # fmt: skip
    return [results[index] for index in range(len(prompts))]


def iter_greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    options: GenerationOptions,
    *,
    guides: Sequence[TokenGuide] | None = None,
    limits: Sequence[int] | None = None,
    on_token: OnToken | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """As `generate_greedy`, giving (index of the prompt, answer) as each is finished."""
    if seeds is not None and guides is None:
        raise ConfigError("seeds: tokens are drawn from those that guides allow; give guides")
    if not all(prompts):
        raise ConfigError(f"prompts: number {[bool(p) for p in prompts].index(False)} is empty")
    can_use_slots = supports_slots(model)
    if options.method == "slots" and not can_use_slots:
        raise ConfigError(
            f"method: 'slots' does not fit {type(model).__name__}, whose attention is not by mask "
            "alone; use 'batch' or 'auto'"
        )
    rows = [
        Row(
            index,
            guides[index] if guides is not None else None,
            options.end_token_id,
            options.max_new_tokens if limits is None else limits[index],
            on_token,
            None if seeds is None else seeds[index],
        )
        for index in range(len(prompts))
    ]
    rows.sort(key=lambda row: -len(prompts[row.index]))
    use_slots = options.method == "slots" or (
        options.method == "auto"
        and can_use_slots
        and model.device.type == "cuda"
        and len(prompts) > 1
    )
    if options.room is None:
        options = replace(options, room=find_room(model))
    generate = generate_in_slots if use_slots else _generate_in_batches
    with _uncollected():
        yield from generate(model, prompts, rows, options)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cyclic collector, which would go through the states of all guides time and again.

    Guides undo their circles themselves when they are released.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _generate_in_batches(
    model: Any, prompts: Sequence[Sequence[int]], rows: list[Row], options: GenerationOptions
) -> Iterator[tuple[int, Generated]]:
    while rows:
        size = _count_together(model, len(prompts[rows[0].index]), rows, options)
        active, rows = rows[:size], rows[size:]
        with evaluation(model):
            reader = BatchReader(
                model, [prompts[row.index] for row in active], options.pad_token_id,
                bidirectional_prompt=options.bidirectional_prompt,
            )  # fmt: skip
            logits = reader.read_prompts()
            prepare_guides(active)
        while True:
            with evaluation(model):
                choices = _choose_where_read(logits, active)
            kept: list[int] = []
            for place, row in enumerate(active):
                finished = row.take(*choices[place]) if place in choices else None
                if finished is None and place in choices:
                    finished = row.take_forced()
                if finished is None:
                    kept.append(place)
                else:
                    yield row.index, finished
            if not kept:
                break
            with evaluation(model):
                if len(kept) < len(active):
                    reader.keep(kept)
                    active = [active[place] for place in kept]
                logits = reader.read_tokens(_take_unread(active, reader))


def _count_together(
    model: Any, longest_prompt: int, rows: Sequence[Row], options: GenerationOptions
) -> int:
    num_places = longest_prompt + max(row.limit for row in rows[: options.batch_size])
    size = min(options.batch_size, count_slots(model, num_places, options.room))
    most_tokens = count_prompt_tokens(model, size, num_places, options.room)
    return min(size, max(1, most_tokens // longest_prompt))


def _choose_where_read(logits: Tensor, rows: Sequence[Row]) -> dict[int, tuple[int, float]]:
    """The choice of each row whose tokens have all been read, by its place in the batch."""
    ready = [place for place, row in enumerate(rows) if row.num_read == len(row.token_ids)]
    if not ready:
        return {}
    choice = choose_for_rows(logits, [rows[place] for place in ready], ready)
    return dict(zip(ready, zip(*choice.read(), strict=True), strict=True))


def _take_unread(rows: Sequence[Row], reader: BatchReader) -> list[list[int]]:
    width = reader.choose_width(len(rows))
    unread = [row.token_ids[row.num_read : row.num_read + width] for row in rows]
    for row, tokens in zip(rows, unread, strict=True):
        row.num_read += len(tokens)
    return unread
