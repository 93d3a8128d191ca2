"""Generation for many prompts, over token ids; it knows nothing about text.

The likeliest token is written; or, for rows with a seed, one drawn from those that are allowed.

Two ways, with the same result:

- `batch`: prompts of similar length are read together; rows that are finished leave the batch,
  and tokens that a guide leaves no choice about are read several at a time. Any causal model.
- `slots`: a finished row's place is taken by the next prompt at once (`SlotReader`), and guides
  work while the model does. For many prompts.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

from torch import Tensor

from tripletune.errors import ConfigError
from tripletune.extraction.batch_reader import BatchReader, evaluation
from tripletune.extraction.choice import Choice, choose_tokens
from tripletune.extraction.sampling import draw_gumbel
from tripletune.extraction.slot_reader import SlotReader, count_slots, round_places, supports_slots
from tripletune.extraction.states import TokenArray

__all__ = [
    "Generated",
    "GenerationMethod",
    "GenerationOptions",
    "TokenGuide",
    "generate_greedy",
    "iter_greedy",
]

_PROMPT_TOKENS_AT_ONCE = 16384
_SMALLEST_TAIL = 8

GenerationMethod = Literal["auto", "batch", "slots"]
OnToken = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Generated:
    """What one row wrote.

    Attributes:
        token_ids: The tokens, without the end token.
        log_probabilities: Of each token, and of the end token if there is one; renormalised over
            the allowed tokens where a guide restricts them.
        is_complete: Whether it ended by itself, not by the limit.
    """

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to generate.

    Attributes:
        end_token_id: The token that ends an answer.
        pad_token_id: What to pad with.
        max_new_tokens: Longest answer, end token included.
        batch_size: Rows computed together; fewer where a GPU has no room for so many.
        method: See the module's text; `auto` takes slots on a GPU, for models that can be fed so,
            when there are more prompts than one batch holds or guides.
        use_cuda_graphs: Whether slots on a GPU replay a recorded step.
        bidirectional_prompt: As `BatchReader`.

    Raises:
        ConfigError: a limit is below 1.
    """

    end_token_id: int
    pad_token_id: int
    max_new_tokens: int = 256
    batch_size: int = 16
    method: GenerationMethod = "auto"
    use_cuda_graphs: bool = True
    bidirectional_prompt: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise ConfigError(
                f"batch_size, max_new_tokens: {self.batch_size!r}, {self.max_new_tokens!r}; need "
                "at least 1"
            )


class TokenGuide(Protocol):
    """Says, token by token, what a row may write."""

    @property
    def is_finished(self) -> bool:
        """Whether the row ends here, which is asked after every token."""
        ...

    def prepare(self) -> None:
        """Does what can be done before the first token, while the model reads the prompt."""
        ...

    def allowed(self) -> TokenArray | None:
        """The ids that may come next, of which there may be none, which ends the row; None: all.

        The guides of one call all give ids, or all give None.
        """
        ...

    def advance(self, token_id: int) -> None:
        """Takes note of the token that was chosen."""
        ...


@dataclass(slots=True)
class _Row:
    """One prompt's answer so far."""

    index: int
    guide: TokenGuide | None
    end_token_id: int
    limit: int
    on_token: OnToken | None
    seed: int | None
    token_ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    num_read: int = 0

    def take(self, token: int, score: float) -> Generated | None:
        """Notes a token (-1: none); the answer when it is finished by it."""
        if token < 0:
            return self.finish(is_complete=True)
        self.log_probabilities.append(score)
        is_end = token == self.end_token_id
        if not is_end:
            self.token_ids.append(token)
            if self.guide is not None:
                self.guide.advance(token)
        if self.on_token is not None:
            self.on_token(self.index, token, score)
        if is_end or (self.guide is not None and self.guide.is_finished):
            return self.finish(is_complete=True)
        if len(self.token_ids) == self.limit:
            return self.finish(is_complete=False)
        return None

    def take_forced(self) -> Generated | None:
        """Notes the tokens that the guide leaves no choice about."""
        while self.guide is not None:
            allowed = self.guide.allowed()
            if allowed is None or len(allowed) > 1:
                return None
            finished = self.take(int(allowed[0]) if len(allowed) else -1, 0.0)
            if finished is not None:
                return finished
        return None

    def finish(self, *, is_complete: bool) -> Generated:
        """The answer as it stands."""
        return Generated(tuple(self.token_ids), tuple(self.log_probabilities), is_complete)


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
        _Row(
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
    generate = _generate_in_slots if use_slots else _generate_in_batches
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
    model: Any, prompts: Sequence[Sequence[int]], rows: list[_Row], options: GenerationOptions
) -> Iterator[tuple[int, Generated]]:
    for first in range(0, len(rows), options.batch_size):
        active = rows[first : first + options.batch_size]
        with evaluation(model):
            reader = BatchReader(
                model, [prompts[row.index] for row in active], options.pad_token_id,
                bidirectional_prompt=options.bidirectional_prompt,
            )  # fmt: skip
            logits = reader.read_prompts()
            _prepare(active)
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


def _choose_where_read(logits: Tensor, rows: Sequence[_Row]) -> dict[int, tuple[int, float]]:
    """The choice of each row whose tokens have all been read, by its place in the batch."""
    ready = [place for place, row in enumerate(rows) if row.num_read == len(row.token_ids)]
    if not ready:
        return {}
    choice = _choose(logits, [rows[place] for place in ready], ready)
    return dict(zip(ready, zip(*choice.read(), strict=True), strict=True))


def _take_unread(rows: Sequence[_Row], reader: BatchReader) -> list[list[int]]:
    width = reader.choose_width(len(rows))
    unread = [row.token_ids[row.num_read : row.num_read + width] for row in rows]
    for row, tokens in zip(rows, unread, strict=True):
        row.num_read += len(tokens)
    return unread


def _generate_in_slots(
    model: Any, prompts: Sequence[Sequence[int]], rows: list[_Row], options: GenerationOptions
) -> Iterator[tuple[int, Generated]]:
    """Rows of about the same length together where memory is short.

    Every slot has the room of the longest row.
    """
    rooms = {row.index: round_places(len(prompts[row.index]) + row.limit) for row in rows}
    rows.sort(key=lambda row: -rooms[row.index])
    while rows:
        num_places = rooms[rows[0].index]
        has_room = count_slots(model, num_places) >= min(options.batch_size, len(rows))
        fitting = [row for row in rows if has_room or 2 * rooms[row.index] >= num_places]
        rows = rows[len(fitting) :]
        yield from _generate_in_slots_of(num_places, model, prompts, fitting, options)


def _generate_in_slots_of(
    num_places: int,
    model: Any,
    prompts: Sequence[Sequence[int]],
    rows: list[_Row],
    options: GenerationOptions,
) -> Iterator[tuple[int, Generated]]:
    """One step behind: the device reads the newest tokens while guides take note of them.

    A row that turns out to be finished has its last step thrown away.
    """
    waiting = deque(rows)
    reader = SlotReader(
        model, num_slots=min(options.batch_size, len(rows), count_slots(model, num_places)),
        num_places=num_places, pad_token_id=options.pad_token_id,
        use_cuda_graphs=options.use_cuda_graphs, bidirectional_prompt=options.bidirectional_prompt,
    )  # fmt: skip
    active: dict[int, _Row] = {}
    unsettled: list[tuple[list[int], Choice]] = []
    while waiting or active:
        with evaluation(model):
            if not waiting:
                active = _shrink(reader, active, unsettled)
            unsettled += _admit(reader, waiting, active, prompts)
            logits = reader.step()
        finished = [pair for slots, choice in unsettled for pair in _settle(slots, choice, active)]
        unsettled = []
        yield from finished
        if active:
            with evaluation(model):
                slots = sorted(active)
                choice = _choose(logits, [active[slot] for slot in slots], slots)
                reader.set_tokens(slots, choice.tokens)
            unsettled.append((slots, choice))


def _admit(
    reader: SlotReader,
    waiting: deque[_Row],
    active: dict[int, _Row],
    prompts: Sequence[Sequence[int]],
) -> list[tuple[list[int], Choice]]:
    """Fills free slots when enough are free for reading prompts together to pay."""
    free = [slot for slot in range(reader.num_slots) if slot not in active]
    if active and len(free) < min(len(waiting), max(1, reader.num_slots // 8)):
        return []
    choices = []
    while free and waiting:
        longest = max(len(prompts[row.index]) for row in islice(waiting, len(free)))
        count = min(len(free), len(waiting), max(1, _PROMPT_TOKENS_AT_ONCE // longest))
        slots, free = free[:count], free[count:]
        rows = [waiting.popleft() for _ in range(count)]
        logits = reader.read_prompts(slots, [prompts[row.index] for row in rows])
        _prepare(rows)
        choice = _choose(logits, rows)
        reader.set_tokens(slots, choice.tokens)
        active.update(zip(slots, rows, strict=True))
        choices.append((slots, choice))
    return choices


def _settle(
    slots: list[int], choice: Choice, active: dict[int, _Row]
) -> Iterator[tuple[int, Generated]]:
    for slot, token, score in zip(slots, *choice.read(), strict=True):
        finished = active[slot].take(token, score)
        if finished is not None:
            yield active.pop(slot).index, finished


def _shrink(
    reader: SlotReader, active: dict[int, _Row], unsettled: list[tuple[list[int], Choice]]
) -> dict[int, _Row]:
    """Drops free slots at the end, when nothing waits for them and half are free."""
    if not active or len(active) < _SMALLEST_TAIL or 2 * len(active) > reader.num_slots:
        return active
    number = {slot: place for place, slot in enumerate(active)}
    reader.select(list(active))
    for slots, _ in unsettled:
        slots[:] = [number[slot] for slot in slots]
    return {number[slot]: row for slot, row in active.items()}


def _prepare(rows: Sequence[_Row]) -> None:
    for row in rows:
        if row.guide is not None:
            row.guide.prepare()


def _choose(logits: Tensor, rows: Sequence[_Row], places: Sequence[int] | None = None) -> Choice:
    allowed = [row.guide.allowed() for row in rows if row.guide is not None]
    known = [ids for ids in allowed if ids is not None]
    noise = [
        draw_gumbel(row.seed, len(row.token_ids), ids)
        for row, ids in zip(rows, known, strict=False)
        if row.seed is not None
    ]
    return choose_tokens(logits, known or None, places=places, noise=noise or None)
