"""Attention masks for causal language models, padded, packed or given by the caller.

The library's own masks serve every attention implementation but one: for flex attention they are
compiled anew for each shape, which takes seconds, so that one is built here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import create_causal_mask

from tripletune.errors import DataError
from tripletune.models.packed_attention import (
    PACKED_ATTENTION,
    find_seen_runs,
    is_packed,
    limit_runs,
)

__all__ = [
    "TAKE_READY_MASKS",
    "build_block_mask",
    "build_causal_mask",
    "convert_explicit_mask",
    "give_runs_to_layers",
    "number_documents",
]

TAKE_READY_MASKS = frozenset({"gemma2", "gemma3_text", "qwen2", "qwen3"})
"""Models whose forward pass takes the masks of full and sliding layers as a dictionary."""


def build_causal_mask(
    config: PreTrainedConfig,
    inputs_embeds: Tensor,
    attention_mask: Any,
    position_ids: Tensor | None,
    past_key_values: Cache | None,
) -> Any:
    """The mask in the form that the attention implementation takes; None when it needs none.

    Args:
        config: Names the attention implementation.
        inputs_embeds: (B, S, E), for shape, dtype and device.
        attention_mask: (B, K) with 1 at real tokens; an explicit (B or 1, 1, S, K) mask, bool with
            True where attention is allowed or additive; runs; a `BlockMask`; or None.
        position_ids: (B, S). Without an attention mask and a cache, a row whose positions restart
            holds several packed documents, which do not see each other.
        past_key_values: Keys and values of the tokens before.

    Raises:
        DataError: an additive mask with flex attention, which has no form for it.
    """
    implementation = str(config._attn_implementation)
    if is_packed(attention_mask):
        return attention_mask
    if isinstance(attention_mask, Tensor) and attention_mask.dim() == 4:
        return convert_explicit_mask(attention_mask, implementation, inputs_embeds.dtype)
    if implementation == PACKED_ATTENTION and attention_mask is None and past_key_values is None:
        if position_ids is None:
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        return find_seen_runs(number_documents(position_ids))
    if implementation == "flex_attention" and not isinstance(attention_mask, BlockMask):
        return build_block_mask(inputs_embeds, attention_mask, position_ids, past_key_values)
    return create_causal_mask(
        config=config,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        past_key_values=past_key_values,
        position_ids=position_ids,
    )


def number_documents(position_ids: Tensor) -> Tensor:
    """(B, S) document numbers of packed rows, a new one wherever positions do not go on by 1."""
    return F.pad((position_ids.diff(dim=-1) != 1).long().cumsum(dim=-1), (1, 0))


def build_block_mask(
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
    past_key_values: Cache | None,
) -> Any:
    """The causal mask for flex attention, made without the compilation that the library's costs.

    Args:
        inputs_embeds: (B, S, E).
        attention_mask: (B, K) with 1 at real tokens. None: every token is real.
        position_ids: (B, S); see `ChatGLM2Model.forward` for packed documents.
        past_key_values: Keys and values of the tokens before.
    """
    num_queries = inputs_embeds.shape[1]
    num_past: int | Tensor = 0
    is_real: Tensor | None = None
    document_ids: Tensor | None = None
    num_keys = num_queries
    if past_key_values is not None:
        num_past = past_key_values.get_seq_length()
        if isinstance(num_past, Tensor):
            # A static cache counts up in place, while the mask is read later, layer by layer.
            num_past = num_past.clone().reshape(())
        num_keys, _ = past_key_values.get_mask_sizes(num_queries, 0)
    elif attention_mask is None and position_ids is not None:
        document_ids = number_documents(position_ids)
    if attention_mask is not None:
        # A static cache has room for tokens to come, which causality hides.
        num_unknown = num_keys - attention_mask.shape[1]
        is_real = F.pad(attention_mask.bool(), (0, num_unknown), value=True)

    def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        place = query + num_past
        allow = key <= place
        if is_real is not None:
            allow = allow & is_real[batch, key]
        if document_ids is not None:
            allow = allow & (document_ids[batch, place] == document_ids[batch, key])
        # A padding query sees itself, so that no row is empty.
        return allow | (place == key)

    num_rows = next((t.shape[0] for t in (is_real, document_ids) if t is not None), 1)
    return create_block_mask(
        allowed, num_rows, None, num_queries, num_keys, device=str(inputs_embeds.device)
    )


def convert_explicit_mask(mask: Tensor, implementation: str, dtype: torch.dtype) -> Any:
    """A caller's mask in the form that an attention implementation takes.

    Args:
        mask: (B or 1, 1, S, K), bool with True where attention is allowed, or additive.
        implementation: Name of the attention implementation.
        dtype: Dtype of the queries, which an additive mask must have.

    Raises:
        DataError: an additive mask with flex attention, which has no form for it.
    """
    if implementation == "flex_attention":
        if mask.dtype != torch.bool:
            raise DataError(
                f"attention_mask: {mask.dtype} of four dimensions; flex_attention takes a bool "
                "mask with True where attention is allowed: pass that, or use sdpa"
            )

        pairs = mask[:, 0]  # (B or 1, S, K)

        def allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return pairs[batch, query, key]

        rows, _, queries, keys = mask.shape
        return create_block_mask(allowed, rows, None, queries, keys, device=str(mask.device))
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    if implementation != "eager":
        return mask
    lowest = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, lowest)


def give_runs_to_layers(
    config: Any, runs: Tensor, *, limit: Callable[[Tensor, int], Tensor] = limit_runs
) -> Any:
    """A packed mask in the form that a network from `transformers` takes.

    Args:
        config: Of the network.
        runs: (B, 1, 4, S) int32 from `find_seen_runs`, or (B, 1, 2, 1) of slots.
        limit: Applies a window to them; `limit_slots` for those of slots.

    Returns:
        The runs; for a network of `TAKE_READY_MASKS` with sliding layers, those of each kind of
        layer, (B, 1, 1, 4, S) or (B, 1, 1, 2, 1): the window is in the mask, and its layers are all
        alike.
    """
    kinds = getattr(config, "layer_types", None) or ()
    if config.model_type not in TAKE_READY_MASKS or "sliding_attention" not in kinds:
        return runs
    return {
        "full_attention": runs.unsqueeze(1),
        "sliding_attention": limit(runs, config.sliding_window).unsqueeze(1),
    }
