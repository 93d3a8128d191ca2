"""Feeds a model: prompts as a padded batch, then each row's further tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tripletune.extraction.choice import copy_to_device
from tripletune.models.attention_switch import find_base, packed_attention
from tripletune.models.bidirectional_prompt import build_prompt_mask
from tripletune.models.current_device import on_device_of
from tripletune.models.sdpa import without_cudnn_attention

__all__ = ["BatchReader", "accepted_arguments", "evaluation"]

_FREE_TOKENS = 64
"""Tokens that a step computes in about the time of one: reading the weights takes longer."""


class BatchReader:
    """Rows padded on the left, over a cache that grows with every step.

    A step may feed several tokens of a row at once. Shorter rows are padded on the left of the
    step; what padding writes into the cache is masked for ever:

    ```
    prompt           step     step
    . . a a a a      a        . a
    b b b b b b      b        b b
    ```

    Args:
        model: A causal language model.
        prompts: Token ids of each row.
        pad_token_id: What to pad with.
        bidirectional_prompt: Whether the tokens of a prompt see each other in a causal network,
            which was trained so.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        pad_token_id: int,
        *,
        bidirectional_prompt: bool = False,
    ) -> None:
        from tripletune.models.loading import find_position_scheme

        self._model = model
        self._device = model.device
        self._pad_token_id = pad_token_id
        self._arguments = accepted_arguments(model)
        self._two_rows = find_position_scheme(model) == "two_rows"
        self._bidirectional_prompt = bidirectional_prompt and not self._two_rows
        # Positions are told on the host: to ask the device would be to wait for it.
        padded = input_ids, mask = self._pad(prompts)  # (B, S), (B, K)
        if self._two_rows:
            from tripletune.models.chatglm import build_position_ids

            positions = build_position_ids(input_ids, model.config, attention_mask=mask)
        else:
            positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        self._input_ids, self.mask = copy_to_device(padded, self._device)
        self.positions = copy_to_device(positions, self._device)  # (B, S) or (B, 2, S)
        self.cache: Any = None

    def read_prompts(
        self, *, cache: Any = None, ready_mask: bool = False, in_runs: bool = False
    ) -> Tensor:
        """Logits (B, V) of the first new token of each row.

        Args:
            cache: Where keys and values go. None: where the model puts them.
            ready_mask: Whether the model takes masks that are ready made (`supports_slots`). It is
                given one then: to make one, the library asks the device whether there is padding,
                and waits.
            in_runs: Whether our kernels can compute the model's attention. Its mask is runs then.
        """
        self.cache = cache
        if in_runs:
            with packed_attention(find_base(self._model)):
                return self._forward(self._input_ids, self._build_mask(in_runs=True))
        mask: Any = self.mask
        if self._bidirectional_prompt or (ready_mask and not self._two_rows):
            mask = self._build_mask(in_runs=False)
        return self._forward(self._input_ids, mask)

    def _build_mask(self, *, in_runs: bool) -> Any:
        """What the tokens of prompts see; in runs padding is a document of its own."""
        is_real = self.mask.bool()
        if self._two_rows:
            is_context = self.positions[:, 1] == 0
        else:
            is_context = is_real if self._bidirectional_prompt else torch.zeros_like(is_real)
        return build_prompt_mask(
            self._model.config,
            is_context=is_context,
            is_real=None if in_runs else is_real,
            document_ids=self.mask if in_runs else None,
            dtype=self._model.dtype,
        )

    def choose_width(self, num_rows: int) -> int:
        """How many tokens of a row a step may feed at no cost."""
        return max(1, _FREE_TOKENS // num_rows)

    def read_tokens(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Logits (B, V) of the token after the given ones.

        Args:
            tokens: The next tokens of each row, at least one.
        """
        input_ids, is_real = copy_to_device(self._pad(tokens), self._device)  # (B, S)
        self.mask = torch.cat([self.mask, is_real], dim=1)
        ahead = is_real.cumsum(dim=-1)  # (B, S), 0 at padding
        newest = self.positions[..., -1:]
        if self._two_rows:
            ahead = torch.stack([torch.zeros_like(ahead), ahead], dim=1)  # (B, 2, S)
        self.positions = newest + ahead
        return self._forward(input_ids, self.mask)

    def keep(self, rows: Sequence[int]) -> None:
        """Drops every row but these."""
        index = copy_to_device(torch.tensor(rows), self._device)
        self.mask = self.mask[index]
        self.positions = self.positions[index]
        self.cache.batch_select_indices(index)

    def _pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Ids, and 1 where there is one; (2, B, S) on the host."""
        longest = max(map(len, rows))
        ids = [[self._pad_token_id] * (longest - len(row)) + list(row) for row in rows]
        real = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor([ids, real])

    def _forward(self, input_ids: Tensor, mask: Any) -> Tensor:
        optional = {"position_ids": self.positions, "logits_to_keep": 1}
        with on_device_of(input_ids):
            outputs = self._model(
                input_ids=input_ids,
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                **{name: value for name, value in optional.items() if name in self._arguments},
            )
        self.cache = outputs.past_key_values
        logits: Tensor = outputs.logits[:, -1]
        return logits


def accepted_arguments(model: Any) -> frozenset[str]:
    """Names of the arguments that a model's forward pass takes, beneath any adapter."""
    return frozenset(inspect.signature(find_base(model).forward).parameters)


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """The model in evaluation mode, without gradients, for batches of ever new shapes.

    Its mode is restored afterwards.
    """
    was_training = model.training
    if was_training:
        model.eval()
    try:
        with torch.inference_mode(), without_cudnn_attention():
            yield
    finally:
        if was_training:
            model.train()
