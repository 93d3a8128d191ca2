"""Attention of one query a slot to the run of keys that the slot holds; how they get there.

A generation step has one query a head, which cannot fill a tile of the kernels for whole rows, and
slots that hold texts of different lengths. What counts is how often keys and values are read: here
once, whatever the number of heads that share them, and no place that the slot does not hold.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: PyTorch's own attention instead
    triton = None

__all__ = ["KERNEL_WIDTHS", "attend_slots", "has_kernels", "limit_slots", "put_in_slots"]

KERNEL_WIDTHS = (16, 32, 64, 128, 256)
"""Head widths that the kernels of packed rows and of slots are written for."""
_LOG2_E = 1.4426950408889634


def has_kernels(states: Tensor, width: int) -> bool:
    """Whether a tensor lies where the kernels run, and its heads are as wide as they take."""
    return triton is not None and states.is_cuda and width in KERNEL_WIDTHS


def attend_slots(
    query: Tensor, key: Tensor, value: Tensor, runs: Tensor, *, scaling: float
) -> Tensor:
    """Softmax attention of each slot's query to a run of its keys; not differentiable.

    Args:
        query: (B, H, 1, D).
        key: (B, G, K, D), H a multiple of G (grouped-query attention); finite outside the run, too.
        value: Likewise.
        runs: (B, 2) int32, contiguous: the first and the last key of each run.
        scaling: Multiplies the scores.

    Returns:
        (B, 1, H, D), contiguous, in the query's dtype.
    """
    if has_kernels(query, query.shape[-1]):
        output: Tensor = torch.ops.tripletune.attend_slots(query, key, value, runs, scaling)
        return output
    batch, heads, _, width = query.shape
    # The heads that share keys are queries of one head, for which nothing has to be repeated.
    shared = query.reshape(batch, key.shape[1], -1, width)
    index = torch.arange(key.shape[2], device=key.device)
    seen = (index >= runs[:, :1]) & (index <= runs[:, 1:])  # (B, K)
    mixed = F.scaled_dot_product_attention(
        shared, key, value, attn_mask=seen[:, None, None], scale=scaling
    )
    return mixed.reshape(batch, 1, heads, width)


def put_in_slots(
    keys: Tensor,
    values: Tensor,
    key_states: Tensor,
    value_states: Tensor,
    *,
    slots: Tensor,
    rows: Tensor,
    places: Tensor,
) -> None:
    """Writes keys and values of some tokens into slots, one after another.

    Args:
        keys: (N, G, K, D), contiguous: the slots.
        values: Likewise, of a width of their own.
        key_states: (R, G, S, D).
        value_states: Likewise.
        slots: (B,) int64, contiguous as the other two, which are written to, each once.
        rows: (B,) int64, which of the R each is given.
        places: (B,) int64, where in the slot the first of the S tokens belongs.
    """
    if has_kernels(keys, keys.shape[-1]) and keys.shape == values.shape:
        torch.ops.tripletune.put_in_slots(
            keys, values, key_states, value_states, slots, rows, places
        )
        return
    place = places[:, None] + torch.arange(key_states.shape[2], device=places.device)  # (B, S)
    keys[slots[:, None], :, place] = key_states[rows].transpose(1, 2)
    values[slots[:, None], :, place] = value_states[rows].transpose(1, 2)


def limit_slots(runs: Tensor, window: int) -> Tensor:
    """Runs (..., 2, 1) of no more than the last `window` keys."""
    first, last = runs.unbind(-2)
    return torch.stack([torch.maximum(first, last - (window - 1)), last], dim=-2)


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _single_kernel(  # type: ignore[no-untyped-def]
        query, key, value, output, runs,
        query_b, query_h, key_b, key_h, key_s, value_b, value_h, value_s, heads, scale,
        WIDTH: tl.constexpr, COLS: tl.constexpr,
    ):  # fmt: skip
        # One program: one head with keys of its own, COLS keys at a time.
        head, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
        depth = tl.arange(0, WIDTH)
        begin, end = tl.load(runs + 2 * batch), tl.load(runs + 2 * batch + 1)
        queries = tl.load(query + batch * query_b + head * query_h + depth).to(tl.float32) * scale
        key += batch * key_b + head * key_h
        value += batch * value_b + head * value_h
        highest = -1e30
        total = 0.0
        mixed = tl.zeros([WIDTH], tl.float32)
        for start in range(begin, end + 1, COLS):
            col = start + tl.arange(0, COLS)
            seen = col <= end
            place = col[:, None]
            keys = tl.load(key + place * key_s + depth[None, :], mask=seen[:, None], other=0.0)
            values = tl.load(
                value + place * value_s + depth[None, :], mask=seen[:, None], other=0.0
            )
            scores = tl.sum(keys.to(tl.float32) * queries[None, :], 1)
            scores = tl.where(seen, scores, float("-inf"))
            now = tl.maximum(highest, tl.max(scores, 0))
            weights = tl.exp2(scores - now)
            fade = tl.exp2(highest - now)
            total = total * fade + tl.sum(weights, 0)
            mixed = mixed * fade + tl.sum(weights[:, None] * values.to(tl.float32), 0)
            highest = now
        mixed = mixed / tl.where(total > 0, total, 1.0)
        tl.store(output + (batch * heads + head) * WIDTH + depth, mixed.to(output.dtype.element_ty))

    @triton.jit  # type: ignore[untyped-decorator]
    def _shared_kernel(  # type: ignore[no-untyped-def]
        query, key, value, output, runs,
        query_b, query_h, key_b, key_h, key_s, value_b, value_h, value_s, heads, scale,
        GROUP: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, COLS: tl.constexpr,
        PRECISION: tl.constexpr,
    ):  # fmt: skip
        # One program: the GROUP heads that share keys, as ROWS queries.
        group, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
        row = tl.arange(0, ROWS)
        head = group * GROUP + row
        depth = tl.arange(0, WIDTH)
        inside = (row < GROUP)[:, None]
        begin, end = tl.load(runs + 2 * batch), tl.load(runs + 2 * batch + 1)
        queries = tl.load(
            query + batch * query_b + head[:, None] * query_h + depth[None, :],
            mask=inside, other=0.0,
        )  # fmt: skip
        key += batch * key_b + group * key_h
        value += batch * value_b + group * value_h
        highest = tl.full([ROWS], -1e30, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        mixed = tl.zeros([ROWS, WIDTH], tl.float32)
        for start in range(begin, end + 1, COLS):
            col = start + tl.arange(0, COLS)
            seen = col <= end
            place = col[:, None]
            keys = tl.load(key + place * key_s + depth[None, :], mask=seen[:, None], other=0.0)
            values = tl.load(
                value + place * value_s + depth[None, :], mask=seen[:, None], other=0.0
            )
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            scores = tl.where(seen[None, :], scores, float("-inf"))
            now = tl.maximum(highest, tl.max(scores, 1))
            weights = tl.exp2(scores - now[:, None])
            fade = tl.exp2(highest - now)
            total = total * fade + tl.sum(weights, 1)
            mixed = tl.dot(
                weights.to(values.dtype), values, mixed * fade[:, None], input_precision=PRECISION
            )
            highest = now
        mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
        place = (batch * heads + head[:, None]) * WIDTH + depth[None, :]
        tl.store(output + place, mixed.to(output.dtype.element_ty), mask=inside)

    @triton.jit  # type: ignore[untyped-decorator]
    def _put_kernel(  # type: ignore[no-untyped-def]
        keys, values, key_states, value_states, slots, rows, places,
        key_r, key_h, key_s, value_r, value_h, value_s, length, groups, num_places,
        WIDTH: tl.constexpr, TOKENS: tl.constexpr,
    ):  # fmt: skip
        # One program: TOKENS tokens of one head of one slot.
        group, number = tl.program_id(0), tl.program_id(1)
        slot, row = tl.load(slots + number), tl.load(rows + number)
        token = (tl.program_id(2) * TOKENS + tl.arange(0, TOKENS))[:, None]
        depth = tl.arange(0, WIDTH)[None, :]
        inside = token < length
        key = tl.load(key_states + row * key_r + group * key_h + token * key_s + depth, mask=inside)
        value = tl.load(
            value_states + row * value_r + group * value_h + token * value_s + depth, mask=inside
        )
        place = (slot * groups + group) * num_places + tl.load(places + number) + token
        tl.store(keys + place * WIDTH + depth, key, mask=inside)
        tl.store(values + place * WIDTH + depth, value, mask=inside)

    @torch.library.custom_op("tripletune::put_in_slots", mutates_args=("keys", "values"))
    def _put(
        keys: Tensor, values: Tensor, key_states: Tensor, value_states: Tensor,
        slots: Tensor, rows: Tensor, places: Tensor,
    ) -> None:  # fmt: skip
        _, groups, num_places, width = keys.shape
        length = key_states.shape[2]
        tokens, warps = (1, 1) if length == 1 else (32, 4)
        states = (key_states, value_states)
        strides = (tensor.stride(axis) for tensor in states for axis in range(3))
        _put_kernel[(groups, len(slots), triton.cdiv(length, tokens))](
            keys, values, *states, slots, rows, places, *strides, length, groups, num_places,
            WIDTH=width, TOKENS=tokens, num_warps=warps,
        )  # fmt: skip

    @_put.register_fake
    def _(
        keys: Tensor, values: Tensor, key_states: Tensor, value_states: Tensor,
        slots: Tensor, rows: Tensor, places: Tensor,
    ) -> None:  # fmt: skip
        return None

    @torch.library.custom_op("tripletune::attend_slots", mutates_args=())
    def _attend(query: Tensor, key: Tensor, value: Tensor, runs: Tensor, scaling: float) -> Tensor:
        batch, heads, _, width = query.shape
        groups = key.shape[1]
        output = query.new_empty(batch, 1, heads, width)
        strides = (
            *(query.stride(axis) for axis in (0, 1)),
            *(tensor.stride(axis) for tensor in (key, value) for axis in range(3)),
        )
        inputs = (query, key, value, output, runs, *strides, heads, scaling * _LOG2_E)
        if heads == groups:
            columns = 32 if width <= 128 else 16
            _single_kernel[(heads, batch)](*inputs, WIDTH=width, COLS=columns, num_warps=1)
            return output
        group = heads // groups
        _shared_kernel[(groups, batch)](
            *inputs, GROUP=group, ROWS=max(16, triton.next_power_of_2(group)), WIDTH=width,
            COLS=64 if width <= 128 else 32,
            PRECISION="ieee" if query.dtype == torch.float32 else "tf32", num_warps=4, num_stages=3,
        )  # fmt: skip
        return output

    @_attend.register_fake
    def _(query: Tensor, key: Tensor, value: Tensor, runs: Tensor, scaling: float) -> Tensor:
        batch, heads, _, width = query.shape
        return query.new_empty(batch, 1, heads, width)
