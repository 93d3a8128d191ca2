"""Greedy generation in batches, over token ids; it knows nothing about text.

Prompts are padded on the left and read once. Then every row writes a token a step, over a cache
of keys and values, and leaves the batch as soon as it is finished:

```
step      0  1  2  3  4
row 0     a  a  a  E          E is the end token; from step 4 on two rows are computed
row 1     b  b  b  b  b ...
row 2     c  c  c  c  E
```
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from tripletune.errors import ConfigError

__all__ = ["Generated", "TokenGuide", "choose_tokens", "generate_greedy", "iter_greedy"]


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


class TokenGuide(Protocol):
    """Says, token by token, what a row may write."""

    def allowed(self) -> Sequence[int]:
        """The ids that may come next; none ends the row."""
        ...

    def advance(self, token_id: int) -> None:
        """Takes note of the token that was chosen."""
        ...


@dataclass(slots=True)
class _Row:
    index: int
    token_ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)


def generate_greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    end_token_id: int,
    pad_token_id: int,
    max_new_tokens: int,
    batch_size: int = 16,
    guides: Sequence[TokenGuide] | None = None,
    on_token: Callable[[int, int, float], None] | None = None,
) -> list[Generated]:
    """What the model writes after each prompt, in the order of the prompts.

    Args:
        model: A causal language model of `transformers` or this package, on any device.
        prompts: Token ids of each prompt, at least one each.
        end_token_id: The token that ends an answer.
        pad_token_id: What to pad with.
        max_new_tokens: Longest answer, end token included.
        batch_size: Rows computed together.
        guides: One for each prompt; None allows every token.
        on_token: Called with the prompt's index, the token and its log-probability as they come,
            the end token included.

    Raises:
        ConfigError: a prompt is empty or a limit below 1.
    """
    results: list[Generated | None] = [None] * len(prompts)
    for index, generated in iter_greedy(
        model,
        prompts,
        end_token_id=end_token_id,
        pad_token_id=pad_token_id,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        guides=guides,
        on_token=on_token,
    ):
        results[index] = generated
    return [generated for generated in results if generated is not None]


def iter_greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    end_token_id: int,
    pad_token_id: int,
    max_new_tokens: int,
    batch_size: int = 16,
    guides: Sequence[TokenGuide] | None = None,
    on_token: Callable[[int, int, float], None] | None = None,
) -> Iterator[tuple[int, Generated]]:
    """As `generate_greedy`, giving (index of the prompt, answer) as each is finished."""
    if batch_size < 1 or max_new_tokens < 1:
        raise ConfigError(
            f"batch_size, max_new_tokens: {batch_size!r}, {max_new_tokens!r}; need at least 1"
        )
    if not all(prompts):
        raise ConfigError(f"prompts: number {[bool(p) for p in prompts].index(False)} is empty")
    by_length = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    for first in range(0, len(by_length), batch_size):
        rows = [_Row(index) for index in by_length[first : first + batch_size]]
        with _evaluation(model), torch.inference_mode():
            batch = _Batch(model, [prompts[row.index] for row in rows], pad_token_id)
            logits = batch.read_prompts()
        for step in range(max_new_tokens):
            with torch.inference_mode():
                allowed = None if guides is None else [guides[r.index].allowed() for r in rows]
                tokens, scores = choose_tokens(logits, allowed)
            kept: list[int] = []
            for position, row in enumerate(rows):
                token, score = tokens[position], scores[position]
                if token < 0:
                    yield (
                        row.index,
                        Generated(tuple(row.token_ids), tuple(row.log_probabilities), True),
                    )
                    continue
                row.log_probabilities.append(score)
                if on_token is not None:
                    on_token(row.index, token, score)
                if token != end_token_id:
                    row.token_ids.append(token)
                    if guides is not None:
                        guides[row.index].advance(token)
                if token == end_token_id or step + 1 == max_new_tokens:
                    yield (
                        row.index,
                        Generated(
                            tuple(row.token_ids),
                            tuple(row.log_probabilities),
                            token == end_token_id,
                        ),
                    )
                else:
                    kept.append(position)
            if not kept:
                break
            with _evaluation(model), torch.inference_mode():
                if len(kept) < len(rows):
                    batch.keep(kept)
                    rows = [rows[position] for position in kept]
                logits = batch.read_tokens([row.token_ids[-1] for row in rows])


def choose_tokens(
    logits: Tensor, allowed: Sequence[Sequence[int]] | None
) -> tuple[list[int], list[float]]:
    """The likeliest allowed token of each row and its log-probability among the allowed ones.

    Args:
        logits: (B, V).
        allowed: Ids for each row; -1 comes back for a row with none. None: every token.
    """
    if allowed is None:
        scores, tokens = logits.float().log_softmax(dim=-1).max(dim=-1)
        return tokens.tolist(), scores.tolist()
    widest = max(map(len, allowed))
    if widest == 0:
        return [-1] * len(allowed), [0.0] * len(allowed)
    padded = torch.tensor([[*ids, *[-1] * (widest - len(ids))] for ids in allowed])
    padded = padded.to(logits.device, non_blocking=True)  # (B, A)
    chosen = logits.gather(1, padded.clamp(min=0)).float()
    chosen = chosen.masked_fill(padded < 0, -torch.inf)
    scores, places = chosen.log_softmax(dim=-1).max(dim=-1)
    tokens = padded.gather(1, places[:, None])[:, 0]
    return tokens.tolist(), scores.nan_to_num(0.0).tolist()


class _Batch:
    """The rows being computed: their cache, mask and newest positions."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_token_id: int) -> None:
        from tripletune.models.loading import find_position_scheme

        self.model = model
        device = model.device
        longest = max(map(len, prompts))
        self.input_ids = torch.tensor(
            [[pad_token_id] * (longest - len(ids)) + list(ids) for ids in prompts], device=device
        )  # (B, S)
        lengths = torch.tensor([len(ids) for ids in prompts], device=device)
        place = torch.arange(longest, device=device)
        self.mask = (place >= longest - lengths[:, None]).long()  # (B, K)
        self.two_rows = find_position_scheme(model) == "two_rows"
        if self.two_rows:
            from tripletune.models.chatglm import build_position_ids

            self.positions = build_position_ids(
                self.input_ids, model.config, attention_mask=self.mask
            )  # (B, 2, S)
            self.step = torch.tensor([[0], [1]], device=device)
        else:
            self.positions = (self.mask.cumsum(dim=-1) - 1).clamp(min=0)  # (B, S)
            self.step = torch.ones((), dtype=torch.long, device=device)
        self.accepted = _accepted_arguments(model)
        self.cache: Any = None

    def read_prompts(self) -> Tensor:
        """Logits (B, V) of the first new token."""
        return self._forward(self.input_ids)

    def read_tokens(self, tokens: Sequence[int]) -> Tensor:
        """Logits (B, V) of the token after the given ones."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions[..., -1:] + self.step
        return self._forward(torch.tensor(tokens, device=self.mask.device)[:, None])

    def keep(self, rows: Sequence[int]) -> None:
        """Drops every row but these."""
        index = torch.tensor(rows, device=self.mask.device)
        self.mask = self.mask[index]
        self.positions = self.positions[index]
        self.cache.batch_select_indices(index)

    def _forward(self, input_ids: Tensor) -> Tensor:
        arguments = {"position_ids": self.positions, "logits_to_keep": 1}
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **{name: value for name, value in arguments.items() if name in self.accepted},
        )
        self.cache = outputs.past_key_values
        logits: Tensor = outputs.logits[:, -1]
        return logits


def _accepted_arguments(model: Any) -> frozenset[str]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(base.forward).parameters)


@contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    was_training = model.training
    if was_training:
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
