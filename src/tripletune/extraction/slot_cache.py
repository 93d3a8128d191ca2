"""Keys and values in fixed slots: of whole prompts in some, of one token more in all.

Prompts are read with a cache of their own, which puts each layer's keys and values into the slots
as they come and keeps none: what a batch of prompts would hold beside the slots is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from tripletune.models.slot_attention import put_in_slots

__all__ = ["SlotCache", "SlotState"]


@dataclass
class SlotState:
    """Where the slots are, the same in all layers.

    Attributes:
        rows: (slots,) int64: 0, 1, 2, …
        places: (slots,) int64, where each slot writes next.
        length: How many places of a slot are looked at.
    """

    rows: Tensor
    places: Tensor
    length: int


class SlotCache(Cache):
    """The slots of all layers.

    Layers know their state and not the cache: a circle would keep its memory from being free as
    soon as nothing refers to it.

    Attributes:
        state: Where the slots are.
    """

    def __init__(self, num_layers: int, num_slots: int, num_places: int, device: Any) -> None:
        places = torch.zeros(num_slots, dtype=torch.long, device=device)
        self.state = SlotState(torch.arange(num_slots, device=device), places, num_places)
        super().__init__(
            layers=[_SlotLayer(self.state, num_slots, num_places) for _ in range(num_layers)]
        )

    def open_slots(self, slots: Tensor, rows: Any) -> Cache:
        """A cache for reading prompts, which are written into slots.

        Args:
            slots: (B,) of the cache.
            rows: Which of the prompts each slot gets: (B,) int64, or a slice: each its own.
        """
        rows = rows if isinstance(rows, Tensor) else self.state.rows[: len(slots)]
        start = torch.zeros_like(slots)
        return Cache(layers=[_PromptLayer(layer, slots, rows, start) for layer in self.layers])


class _SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: (slots, H, K, D)."""

    is_sliding = False
    is_compileable = True
    keys: Tensor
    values: Tensor

    def __init__(self, state: SlotState, num_slots: int, num_places: int) -> None:
        super().__init__()
        self.state = state
        self.num_slots = num_slots
        self.num_places = num_places

    @property
    def max_cache_len(self) -> int:
        """How many places a step looks at."""
        return self.state.length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes room like the given states, (B, H, S, D)."""
        for name, states in (("keys", key_states), ("values", value_states)):
            shape = (self.num_slots, states.shape[1], self.num_places, states.shape[3])
            setattr(self, name, states.new_zeros(shape))
        self.is_initialized = True

    def select(self, slots: Tensor) -> None:
        """Keeps some slots only."""
        self.keys, self.values = self.keys[slots], self.values[slots]
        self.num_slots = len(slots)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes one token's states (slots, H, 1, D) and gives (slots, H, K, D) back."""
        rows, places = self.state.rows, self.state.places
        put_in_slots(
            self.keys, self.values, key_states, value_states, slots=rows, rows=rows, places=places
        )
        length = self.state.length
        return self.keys[:, :, :length], self.values[:, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys, and the offset of the first."""
        return self.state.length, 0

    def get_seq_length(self) -> int:
        """As if the query stood behind the last place, so that causality hides nothing."""
        return self.state.length

    def get_max_length(self) -> int:
        """Places of a slot."""
        return self.num_places

    get_max_cache_shape = get_max_length


class _PromptLayer(CacheLayerMixin):
    """Writes what is read once into slots of a layer, and keeps nothing."""

    is_sliding = False

    def __init__(self, target: _SlotLayer, slots: Tensor, rows: Tensor, start: Tensor) -> None:
        super().__init__()
        self.target = target
        self.slots = slots
        self.rows = rows
        self.start = start
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is kept here."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes states (B, H, S, D) into the slots and gives them back."""
        target = self.target
        if not target.is_initialized:
            target.lazy_initialization(key_states, value_states)
        put_in_slots(
            target.keys, target.values, key_states, value_states,
            slots=self.slots, rows=self.rows, places=self.start,
        )  # fmt: skip
        self.length = key_states.shape[2]
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys, and the offset of the first."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens that were read."""
        return self.length

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    get_max_cache_shape = get_max_length
