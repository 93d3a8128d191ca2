"""Generation in slots: a finished row's place is taken by the next prompts.

One step behind: the device reads the newest tokens while guides take note of them on the host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from tripletune.extraction.admission import Admission
from tripletune.extraction.batch_reader import evaluation
from tripletune.extraction.choice import Choice
from tripletune.extraction.generation_rows import (
    Generated,
    GenerationOptions,
    Row,
    choose_for_rows,
    prepare_guides,
)
from tripletune.extraction.slot_memory import count_prompt_tokens, count_slots, round_places
from tripletune.extraction.slot_reader import SlotReader

__all__ = ["generate_in_slots"]

_SMALLEST_TAIL = 8


def generate_in_slots(
    model: Any, prompts: Sequence[Sequence[int]], rows: list[Row], options: GenerationOptions
) -> Iterator[tuple[int, Generated]]:
    """(Index of the prompt, answer) of each row as it is finished.

    Every slot has the room of the longest row. Where memory is short, rows of about the same length
    are taken together.

    Args:
        model: A causal language model that `supports_slots`.
        prompts: Token ids of each prompt.
        rows: Their rows; sorted here.
        options: How to generate, with the room there is.
    """
    places = {row.index: round_places(len(prompts[row.index]) + row.limit) for row in rows}
    rows.sort(key=lambda row: -places[row.index])
    while rows:
        num_places = places[rows[0].index]
        most_slots = count_slots(model, num_places, options.room)
        has_room = most_slots >= min(options.batch_size, len(rows))
        fitting = [row for row in rows if has_room or 2 * places[row.index] >= num_places]
        rows = rows[len(fitting) :]
        shape = (min(options.batch_size, len(fitting), most_slots), num_places)
        yield from _generate_in_slots_of(shape, model, prompts, fitting, options)


def _generate_in_slots_of(
    shape: tuple[int, int],
    model: Any,
    prompts: Sequence[Sequence[int]],
    rows: list[Row],
    options: GenerationOptions,
) -> Iterator[tuple[int, Generated]]:
    """In so many slots of so many places.

    A row that turns out to be finished has its last step thrown away.
    """
    waiting = deque(rows)
    num_slots, num_places = shape
    most_tokens = count_prompt_tokens(model, num_slots, num_places, options.room)
    reader = SlotReader(
        model, num_slots=num_slots, num_places=num_places, pad_token_id=options.pad_token_id,
        use_cuda_graphs=options.use_cuda_graphs, bidirectional_prompt=options.bidirectional_prompt,
    )  # fmt: skip
    active: dict[int, Row] = {}
    unsettled: list[tuple[list[int], Choice]] = []
    admission = Admission(num_slots)
    while waiting or active:
        with evaluation(model):
            if not waiting:
                active = _shrink(reader, active, unsettled)
            elif _is_time_to_admit(admission, reader, waiting, active, prompts):
                unsettled += _admit(reader, waiting, active, prompts, most_tokens)
            logits = reader.step()
        finished = [pair for slots, choice in unsettled for pair in _settle(slots, choice, active)]
        unsettled = []
        for _, answer in finished:
            admission.note_finished(len(answer.log_probabilities))
        yield from finished
        if active:
            with evaluation(model):
                slots = sorted(active)
                choice = choose_for_rows(logits, [active[slot] for slot in slots], slots)
                reader.set_tokens(slots, choice.tokens)
            unsettled.append((slots, choice))


def _is_time_to_admit(
    admission: Admission,
    reader: SlotReader,
    waiting: deque[Row],
    active: dict[int, Row],
    prompts: Sequence[Sequence[int]],
) -> bool:
    if not active:
        return True
    longest = len(prompts[waiting[0].index])
    begun = (len(row.token_ids) for row in active.values())
    num_free = reader.num_slots - len(active)
    return num_free >= min(len(waiting), admission.count_wanted(longest, begun))


def _admit(
    reader: SlotReader,
    waiting: deque[Row],
    active: dict[int, Row],
    prompts: Sequence[Sequence[int]],
    most_tokens: int,
) -> list[tuple[list[int], Choice]]:
    """Fills the free slots, reading so many tokens of prompts at a time."""
    free = [slot for slot in range(reader.num_slots) if slot not in active]
    choices = []
    while free and waiting:
        longest = max(len(prompts[row.index]) for row in islice(waiting, len(free)))
        count = min(len(free), len(waiting), max(1, most_tokens // longest))
        slots, free = free[:count], free[count:]
        rows = [waiting.popleft() for _ in range(count)]
        logits = reader.read_prompts(slots, [prompts[row.index] for row in rows])
        prepare_guides(rows)
        choice = choose_for_rows(logits, rows)
        reader.set_tokens(slots, choice.tokens)
        active.update(zip(slots, rows, strict=True))
        choices.append((slots, choice))
    return choices


def _settle(
    slots: list[int], choice: Choice, active: dict[int, Row]
) -> Iterator[tuple[int, Generated]]:
    for slot, token, score in zip(slots, *choice.read(), strict=True):
        finished = active[slot].take(token, score)
        if finished is not None:
            yield active.pop(slot).index, finished


def _shrink(
    reader: SlotReader, active: dict[int, Row], unsettled: list[tuple[list[int], Choice]]
) -> dict[int, Row]:
    """Drops free slots at the end, when nothing waits for them and half are free."""
    if not active or len(active) < _SMALLEST_TAIL or 2 * len(active) > reader.num_slots:
        return active
    number = {slot: place for place, slot in enumerate(active)}
    reader.select(list(active))
    for slots, _ in unsettled:
        slots[:] = [number[slot] for slot in slots]
    return {number[slot]: row for slot, row in active.items()}
