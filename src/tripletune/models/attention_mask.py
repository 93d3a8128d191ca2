"""Attention masks for prefix language models, padded or packed.

A token may attend to a token of the same document when that one comes no later, or when it
belongs to the document's context (the part before the answer). For two packed documents of two
context and two answer tokens, rows are queries and columns are keys:

```
     c c a a C C A A
  c  x x . . . . . .
  c  x x . . . . . .
  a  x x x . . . . .
  a  x x x x . . . .
  C  . . . . x x . .
  C  . . . . x x . .
  A  . . . . x x x .
  A  . . . . x x x x
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tripletune.models.packed_attention import PACKED_ATTENTION, find_seen_runs

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["build_prefix_mask"]


def build_prefix_mask(
    implementation: str,
    *,
    num_queries: int,
    num_keys: int,
    first_query: int | Tensor,
    is_context: Tensor | None,
    is_real: Tensor | None,
    document_ids: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
    window: int | None = None,
) -> Tensor | BlockMask | None:
    """The mask in the form that an attention implementation of `transformers` takes.

    Args:
        implementation: `eager` (additive, 0 or the dtype's minimum), `flex_attention` (block mask),
            `packed_runs` (runs, where nothing is padded or cached), or any other name (boolean,
            True where attention is allowed).
        num_queries: S, length of the query.
        num_keys: K, length of the keys with cache.
        first_query: Index of the first query token among the keys.
        is_context: (B, K) bool, True at keys that every query of their document sees. None: none.
        is_real: (B, K) bool, False at padding. None: everything is real.
        document_ids: (B, K) integers; tokens of different documents do not see each other. None:
            one document a row. Queries are taken at `first_query` onwards.
        dtype: Dtype of an additive mask.
        device: Where the mask is made.
        window: How many keys up to itself a query sees at most; runs say nothing of it.

    Returns:
        (B or 1, 1, S, K) tensor, or a `BlockMask`. A padding query sees at least itself, so that no
        row is empty and softmax gives no NaN. None when a single query sees every key.
    """
    if num_queries == 1 and is_real is None and document_ids is None and type(first_query) is int:
        return None
    packed = is_real is None and type(first_query) is int and num_queries == num_keys
    if implementation == PACKED_ATTENTION and packed and is_context is not None:
        documents = (
            torch.zeros_like(is_context, dtype=torch.int) if document_ids is None else document_ids
        )
        return find_seen_runs(documents, is_context)
    inputs = [t for t in (is_context, is_real, document_ids) if t is not None]
    num_rows = inputs[0].shape[0] if inputs else 1

    def allowed(batch: Any, head: Any, query: Any, key: Any) -> Any:
        query = query + first_query
        allow = key <= query
        if is_context is not None:
            allow = allow | is_context[batch, key]
        if is_real is not None:
            allow = allow & is_real[batch, key]
        if document_ids is not None:
            allow = allow & (document_ids[batch, query] == document_ids[batch, key])
        if window is not None:
            allow = allow & (key > query - window)
        return allow | (query == key)

    if implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        rule = allowed
        if type(first_query) is int and first_query == 0 and num_queries == num_keys:
            first, last = _visible_ranges(num_keys, is_context, is_real, document_ids, device)
            if window is not None:
                nearest = torch.arange(num_keys, device=device) - (window - 1)
                first = torch.maximum(first, nearest)

            def rule(batch: Any, head: Any, query: Any, key: Any) -> Any:
                return (key >= first[batch, query]) & (key <= last[batch, query])

        return create_block_mask(
            rule, num_rows, None, num_queries, num_keys, device=str(device), _compile=False
        )
    batch = torch.arange(num_rows, device=device)[:, None, None, None]
    query = torch.arange(num_queries, device=device)[None, None, :, None]
    key = torch.arange(num_keys, device=device)[None, None, None, :]
    mask: Tensor = allowed(batch, 0, query, key)  # (B, 1, S, K)
    if implementation == "eager":
        additive = torch.zeros(mask.shape, dtype=dtype, device=device)
        return additive.masked_fill_(~mask, torch.finfo(dtype).min)
    return mask


def _visible_ranges(
    length: int,
    is_context: Tensor | None,
    is_real: Tensor | None,
    document_ids: Tensor | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """First and last key that each query sees, (B, S) each, for rows without a cache.

    What a token sees is always one run of keys, because documents, contexts and padding are runs;
    two comparisons a pair are what flex attention's kernels compute fastest.
    """
    index = torch.arange(length, device=device).unsqueeze(0)
    same = torch.ones_like(index[:, 1:], dtype=torch.bool)
    if document_ids is not None:
        same = same & (document_ids[:, 1:] == document_ids[:, :-1])
    if is_real is not None:
        same = same & (is_real[:, 1:] == is_real[:, :-1])
    starts = torch.where(torch.nn.functional.pad(~same, (1, 0), value=True), index, 0)
    first = starts.cummax(dim=1).values
    last = index.expand_as(first)
    if is_context is not None:
        joined = same & is_context[:, 1:] & is_context[:, :-1]
        ends = torch.where(torch.nn.functional.pad(~joined, (0, 1), value=True), index, length)
        run_end = ends.flip(1).cummin(dim=1).values.flip(1)
        last = torch.where(is_context, run_end, last)
    if is_real is not None:
        first, last = torch.where(is_real, first, index), torch.where(is_real, last, index)
    # One row of starts may serve all, where only the contexts differ.
    return first.expand_as(last).contiguous(), last.contiguous()
