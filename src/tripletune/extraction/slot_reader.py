"""Feeds a model row by row into fixed slots, so that another can take a finished row's place.

Every slot has its own room for keys and values and is at its own place in it (`x` is the token
being read, `.` is free or padding):

```
slot 0    p p p p p p a a a x . . . .
slot 1    . p p p p p x . . . . . . .     a prompt that came in while the others went on
slot 2    p p p p p p a a a a a x . .
```

All shapes stay the same from step to step, so a step can be recorded once and replayed as a CUDA
graph. What a query may see is one run of places, from the prompt's first token to the one being
read. Networks whose attention can be ours (`attend_slots`) are told the run itself. Others get a
mask, of as many places as the fullest slot needs: the cache reports that the query stands behind
its last place, so the model's causal rule hides nothing. Networks with layers of sliding window are
given what each kind of layer sees, ready made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tripletune.extraction.batch_reader import BatchReader, accepted_arguments
from tripletune.extraction.choice import copy_to_device
from tripletune.extraction.slot_cache import SlotCache
from tripletune.extraction.slot_memory import round_places
from tripletune.extraction.step_record import StepRecord, can_record, make_room, record_step
from tripletune.models.attention_switch import find_base, packed_attention, takes_runs
from tripletune.models.causal_mask import (
    TAKE_READY_MASKS,
    convert_explicit_mask,
    give_runs_to_layers,
)
from tripletune.models.current_device import on_device_of
from tripletune.models.head_sizes import find_head_width
from tripletune.models.slot_attention import has_kernels, limit_slots

__all__ = ["SlotReader", "supports_slots"]

_STEPS_BEFORE_RECORDING = 1
"""Recording takes about as long as a step without a record; the first of a shape warms it up."""


def supports_slots(model: Any) -> bool:
    """Whether a model attends by its mask alone: no recurrent state, no window of its own."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    takes_kinds = kinds == {"full_attention"} or (
        kinds <= {"full_attention", "sliding_attention"}
        and model.config.model_type in TAKE_READY_MASKS
    )
    has_positions = "position_ids" in accepted_arguments(model)
    no_window = not getattr(config, "sliding_window", None)
    implementation = str(getattr(config, "_attn_implementation", "eager"))
    return (
        takes_kinds
        and (no_window or hasattr(config, "layer_types"))
        and has_positions
        and implementation in ("sdpa", "eager")
    )


class SlotReader:
    """The slots, and the step that reads one token of every slot.

    Args:
        model: A causal language model that `supports_slots`.
        num_slots: Rows computed together.
        num_places: Longest prompt and answer together, in tokens.
        pad_token_id: What to pad prompts with.
        use_cuda_graphs: Whether to record a step and replay it; on a GPU only.
        bidirectional_prompt: As `BatchReader`.

    Warns:
        UserWarning: a step cannot be recorded; it runs without a record from then on.
    """

    def __init__(
        self,
        model: Any,
        *,
        num_slots: int,
        num_places: int,
        pad_token_id: int,
        use_cuda_graphs: bool = False,
        bidirectional_prompt: bool = False,
    ) -> None:
        from tripletune.models.loading import find_position_scheme

        self._model = model
        self._pad_token_id = pad_token_id
        self._bidirectional_prompt = bidirectional_prompt
        self._use_graphs = use_cuda_graphs and can_record(model.device)
        self._records: dict[int, StepRecord] = {}
        self._num_steps: dict[int, int] = {}
        self._pool: Any = None  # one for all records, which never run at the same time
        self._takes_keep = "logits_to_keep" in accepted_arguments(model)
        self._num_places = round_places(num_places)
        device = model.device
        two_rows = find_position_scheme(model) == "two_rows"
        self._ahead = torch.tensor([[0], [1]] if two_rows else [1], device=device)
        shape = (num_slots, 2, 1) if two_rows else (num_slots, 1)
        self._positions = torch.zeros(shape, dtype=torch.long, device=device)
        self._tokens = torch.zeros((num_slots, 1), dtype=torch.long, device=device)
        self._first = torch.zeros(num_slots, dtype=torch.long, device=device)
        config = model.config.get_text_config()
        num_layers = config.num_hidden_layers
        slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
        self._window: int | None = config.sliding_window if slides else None
        self._index = torch.arange(self._num_places, device=device)
        self._takes_runs = takes_runs(model)
        # Our kernels look at no place but those of a slot's run; others at all they are given.
        self._sees_runs_alone = self._takes_runs and has_kernels(
            self._tokens, find_head_width(config)
        )
        # Kernels of whole rows are for half precision.
        in_half = model.dtype in (torch.bfloat16, torch.float16)
        self._reads_in_runs = self._sees_runs_alone and in_half
        self._cache = SlotCache(num_layers, num_slots, self._num_places, device)
        self._last_index: tuple[tuple[int, ...], Tensor] | None = None
        self._filled = np.zeros(num_slots, dtype=np.int64)

    @property
    def num_slots(self) -> int:
        """Slots there are at present."""
        return len(self._filled)

    def index(self, slots: Sequence[int]) -> Tensor:
        """Slots as a tensor on the device, copied without waiting for it."""
        known = tuple(slots)
        if self._last_index is None or self._last_index[0] != known:
            self._last_index = (known, copy_to_device(torch.tensor(known), self._tokens.device))
        return self._last_index[1]

    def read_prompts(self, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """Puts prompts into slots; logits (B, V) of the first new token of each.

        A prompt that comes several times is read once.
        """
        keys = list(map(tuple, prompts))
        row_of = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        reader = BatchReader(
            self._model,
            list(row_of),
            self._pad_token_id,
            bidirectional_prompt=self._bidirectional_prompt,
        )
        rows: Any = slice(None)
        if len(row_of) < len(prompts):
            row_of_each = torch.tensor([row_of[key] for key in keys])
            rows = copy_to_device(row_of_each, self._tokens.device)
        index = self.index(slots)
        cache = self._cache.open_slots(index, rows)
        logits = reader.read_prompts(cache=cache, ready_mask=True, in_runs=self._reads_in_runs)
        length = reader.mask.shape[1]
        self._first[index] = length - reader.mask.sum(1)[rows]
        self._positions[index] = reader.positions[rows][..., -1:]
        self._cache.state.places[index] = length - 1
        self._filled[list(slots)] = length
        return logits[rows]

    def set_tokens(self, slots: Sequence[int], tokens: Tensor) -> None:
        """Says what each slot reads next; tokens (B,) on the device, -1 for anything."""
        self._tokens[self.index(slots), 0] = tokens.clamp(min=0)

    def step(self) -> Tensor:
        """Reads the next token of every slot: logits (slots, V). Free slots give anything."""
        self._filled = np.minimum(self._filled + 1, self._num_places)
        length = self._num_places
        if not self._sees_runs_alone:
            length = min(round_places(int(self._filled.max())), length)
        with on_device_of(self._tokens):
            return self._replay(length) if self._use_graphs else self._step(length)

    def select(self, slots: Sequence[int]) -> None:
        """Keeps some slots only, renumbered from 0 in the order given."""
        index = self.index(slots)
        self._positions, self._tokens = self._positions[index], self._tokens[index]
        self._first = self._first[index]
        self._cache.state.places = self._cache.state.places[index]
        self._cache.state.rows = self._cache.state.rows[: len(slots)]
        self._filled = self._filled[list(slots)]
        self._records.clear()
        self._num_steps.clear()
        self._pool = None  # CUDA lets go of a pool with its last record
        for layer in self._cache.layers:
            layer.select(index)

    def _step(self, length: int) -> Tensor:
        cache, state = self._cache, self._cache.state
        state.length = length
        state.places.add_(1).clamp_(max=self._num_places - 1)
        self._positions.add_(self._ahead)
        with packed_attention(find_base(self._model)) if self._takes_runs else nullcontext():
            outputs = self._model(
                input_ids=self._tokens,
                attention_mask=self._build_runs() if self._takes_runs else self._build_mask(length),
                position_ids=self._positions,
                past_key_values=cache,
                use_cache=True,
                **({"logits_to_keep": 1} if self._takes_keep else {}),
            )
        logits: Tensor = outputs.logits[:, -1]
        return logits

    def _build_runs(self) -> Any:
        """The first and last place that is seen, (slots, 1, 2, 1) int32, as `attend_packed` has it.

        With layers of sliding window those of each kind of layer, (slots, 1, 1, 2, 1).
        """
        runs = torch.stack([self._first, self._cache.state.places], dim=1).int()
        return give_runs_to_layers(self._model.config, runs[:, None, :, None], limit=limit_slots)

    def _build_mask(self, length: int) -> Tensor | dict[str, Tensor]:
        """The padding mask (slots, K), or the masks (slots, 1, 1, K) of full and sliding layers."""
        index, places = self._index[:length], self._cache.state.places[:, None]
        is_seen = (index >= self._first[:, None]) & (index <= places)
        if self._window is None:
            return is_seen.long()
        masks = {
            "full_attention": is_seen,
            "sliding_attention": is_seen & (places - index < self._window),
        }
        implementation, dtype = str(self._model.config._attn_implementation), self._model.dtype
        return {
            kind: convert_explicit_mask(seen[:, None, None], implementation, dtype)
            for kind, seen in masks.items()
        }

    def _replay(self, length: int) -> Tensor:
        """A step from its record, which is made when steps of this shape have proved common."""
        count = self._num_steps.get(length, 0) + 1
        self._num_steps[length] = count
        if count <= _STEPS_BEFORE_RECORDING:
            make_room(self._tokens.device)
            return self._step(length)
        if length not in self._records:
            try:
                self._records[length] = self._record(length)
            except RuntimeError as error:
                self._use_graphs = False
                warnings.warn(
                    "CUDA graphs: a step of this model cannot be recorded "
                    f"({str(error).strip().splitlines()[0]}); steps run without",
                    stacklevel=3,
                )
                return self._step(length)
        return self._records[length].replay()

    def _record(self, length: int) -> StepRecord:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return record_step(lambda: self._step(length), self._tokens.device, self._pool)
