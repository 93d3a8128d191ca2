"""Attention over packed rows of short documents, forward and backward, in Triton on CUDA.

In a packed row every query sees one run of keys, and every key is seen by one run of queries,
whether the documents are causal or have a bidirectional context. Four numbers a token therefore
stand for the whole mask (`SeenRanges`), and a tile of queries visits just the keys between the
first and the last that any of them sees. General block masks lose most of their time here: the
documents are about as long as one of their blocks.

Source: FlashAttention-2, arXiv 2307.08691, algorithms 1 and 2.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tripletune.errors import ModelError
from tripletune.models.slot_attention import attend_slots, limit_slots

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: other attention implementations are used
    triton = None

__all__ = [
    "PACKED_ATTENTION",
    "attend_packed",
    "attend_runs",
    "find_seen_runs",
    "has_packed_attention",
    "is_packed",
    "limit_runs",
    "register_packed_attention",
]

PACKED_ATTENTION = "packed_runs"
"""Name of this implementation in the attention interface of `transformers`."""


def has_packed_attention() -> bool:
    """Whether `attend_runs` can run on this machine: Triton and a CUDA GPU are there."""
    return triton is not None and torch.cuda.is_available()


def find_seen_runs(document_ids: Tensor, is_context: Tensor | None = None) -> Tensor:
    """The mask of packed rows as runs.

    Args:
        document_ids: (B, S) integers; each document is one run of tokens.
        is_context: (B, S) bool, True at the tokens (the first ones of a document) that every token
            of their document sees. None: causal.

    Returns:
        (B, 1, 4, S) int32: the first and the last key that a token sees as a query, and the first
        and the last query that sees it as a key.
    """
    length = document_ids.shape[1]
    index = torch.arange(length, device=document_ids.device).expand_as(document_ids)
    changes = F.pad(document_ids.diff(dim=1) != 0, (1, 0), value=True)
    start = torch.where(changes, index, 0).cummax(dim=1).values
    ends = F.pad(changes[:, 1:], (0, 1), value=True)
    end = torch.where(ends, index, length).flip(1).cummin(dim=1).values.flip(1)
    last_key, first_query = index, index
    if is_context is not None:
        leaves = is_context & (F.pad(~is_context[:, 1:], (0, 1), value=True) | ends)
        context_end = torch.where(leaves, index, length).flip(1).cummin(dim=1).values.flip(1)
        last_key = torch.where(is_context, context_end, index)
        first_query = torch.where(is_context, start, index)
    return torch.stack([start, last_key, first_query, end], dim=1).int().unsqueeze(1).contiguous()


def limit_runs(runs: Tensor, window: int) -> Tensor:
    """Runs of queries that see no more than `window` keys back, themselves included.

    Args:
        runs: (B, 1, 4, S) int32 from `find_seen_runs`.
        window: From 1.

    Returns:
        The same shape and dtype.
    """
    index = torch.arange(runs.shape[-1], device=runs.device, dtype=runs.dtype)
    first_key, last_key, first_query, last_query = runs.unbind(-2)
    first_key = torch.maximum(first_key, index - (window - 1))
    last_query = torch.minimum(last_query, index + (window - 1))
    return torch.stack([first_key, last_key, first_query, last_query], dim=-2)


def is_packed(attention_mask: Any) -> TypeGuard[Tensor]:
    """Whether a mask is of the kind that `find_seen_runs` makes."""
    return isinstance(attention_mask, Tensor) and attention_mask.dtype == torch.int32


def register_packed_attention() -> None:
    """Makes `set_attn_implementation("packed_runs")` known to `transformers`."""
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(PACKED_ATTENTION, attend_packed)
    AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention interface's function: runs by `attend_runs`, any other mask by `sdpa`.

    Args:
        module: The attention layer.
        query: (B, H, S, D).
        key: (B, G, S, D), or (B, G, K, D) for the one query of each slot.
        value: Likewise.
        attention_mask: (B, 1, 4, S) int32 from `find_seen_runs`, for slots the first two of its
            rows; or (B, 1, 1, 4, S), to which the layer's window has been applied, so that all
            layers compile to the same; or what `sdpa` takes.
        scaling: None: the inverse square root of D.
        sliding_window: How many keys, itself included, a query of a causal document sees at most.
            With five dimensions it is never looked at.
        **kwargs: For `sdpa`.

    Returns:
        (B, S, H, D), and None in place of the probabilities.

    Raises:
        ModelError: the layer caps or biases its scores, has sinks or drops weights.
    """
    if not is_packed(attention_mask):
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        output: tuple[Tensor, None] = sdpa(
            module, query, key, value, attention_mask,
            scaling=scaling, sliding_window=sliding_window, **kwargs,
        )  # fmt: skip
        return output
    for name in ("softcap", "s_aux", "position_bias", "dropout"):
        asked = kwargs.get(name)
        if asked is not None and not (name == "dropout" and asked == 0.0):
            raise ModelError(
                f"attention: {type(module).__name__} asks for {name}={asked!r}, which packed "
                "attention does not compute; set_attn_implementation('flex_attention')"
            )
    window = None if attention_mask.dim() == 5 else sliding_window
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.shape[2] != key.shape[2]:
        if window is not None:
            attention_mask = limit_slots(attention_mask, window)
        runs = attention_mask.flatten(1)  # (B, 2)
        return attend_slots(query, key, value, runs, scaling=scaling), None
    if window is not None and window < attention_mask.shape[-1]:
        attention_mask = limit_runs(attention_mask, window)
    runs = attention_mask.flatten(0, -3)
    return attend_runs(query, key, value, runs, scaling=scaling), None


def attend_runs(
    query: Tensor, key: Tensor, value: Tensor, runs: Tensor, *, scaling: float
) -> Tensor:
    """Softmax attention of each query to its run of keys; differentiable.

    Args:
        query: (B, H, S, D) bf16 or fp16 on CUDA; D a power of two from 16, the last stride 1.
        key: (B, G, S, D), H a multiple of G (grouped-query attention).
        value: (B, G, S, D).
        runs: (B or 1, 4, S), as `find_seen_runs` has them.
        scaling: Multiplies the scores.

    Returns:
        (B, S, H, D), contiguous, in the query's dtype.
    """
    runs = runs.expand(query.shape[0], -1, -1)
    output, _ = torch.ops.tripletune.attend_runs(query, key, value, runs, scaling)
    result: Tensor = output
    return result


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _forward_kernel(  # type: ignore[no-untyped-def]
        query, key, value, output, log_sums, runs,
        query_b, query_h, query_s, key_b, key_h, key_s, value_b, value_h, value_s, runs_b,
        length, heads, scale,
        GROUP: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ):  # fmt: skip
        # One program: ROWS queries of one head over the keys they see, COLS at a time.
        head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        depth = tl.arange(0, WIDTH)
        inside = row < length
        first = tl.load(runs + batch * runs_b + row, mask=inside, other=length)
        last = tl.load(runs + batch * runs_b + length + row, mask=inside, other=-1)
        queries = tl.load(
            query + batch * query_b + head * query_h + row[:, None] * query_s + depth[None, :],
            mask=inside[:, None], other=0.0,
        )  # fmt: skip
        key += batch * key_b + (head // GROUP) * key_h
        value += batch * value_b + (head // GROUP) * value_h
        highest = tl.full([ROWS], -1e30, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        mixed = tl.zeros([ROWS, WIDTH], tl.float32)
        for start in range(tl.min(first), tl.max(last) + 1, COLS):
            col = start + tl.arange(0, COLS)
            there = (col < length)[:, None]
            keys = tl.load(key + col[:, None] * key_s + depth[None, :], mask=there, other=0.0)
            values = tl.load(value + col[:, None] * value_s + depth[None, :], mask=there, other=0.0)
            seen = (col[None, :] >= first[:, None]) & (col[None, :] <= last[:, None])
            scores = tl.where(seen, tl.dot(queries, tl.trans(keys)) * scale, float("-inf"))
            now = tl.maximum(highest, tl.max(scores, 1))
            weights = tl.exp2(scores - now[:, None])
            fade = tl.exp2(highest - now)
            total = total * fade + tl.sum(weights, 1)
            mixed = tl.dot(weights.to(values.dtype), values, mixed * fade[:, None])
            highest = now
        total = tl.where(inside, total, 1.0)
        place = (batch * length + row[:, None]) * heads + head
        tl.store(
            output + place * WIDTH + depth[None, :],
            (mixed / total[:, None]).to(output.dtype.element_ty), mask=inside[:, None],
        )  # fmt: skip
        sums = highest + tl.log2(total)
        tl.store(log_sums + (batch * heads + head) * length + row, sums, mask=inside)

    @triton.jit  # type: ignore[untyped-decorator]
    def _query_gradient_kernel(  # type: ignore[no-untyped-def]
        query, key, value, output, output_grad, log_sums, products, query_grad, runs,
        query_b, query_h, query_s, key_b, key_h, key_s, value_b, value_h, value_s, runs_b,
        length, heads, scale, scaling,
        GROUP: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ):  # fmt: skip
        # As the forward pass; also stores the products of output and gradient for the other kernel.
        head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        depth = tl.arange(0, WIDTH)
        inside = row < length
        wide = inside[:, None]
        first = tl.load(runs + batch * runs_b + row, mask=inside, other=length)
        last = tl.load(runs + batch * runs_b + length + row, mask=inside, other=-1)
        place = ((batch * length + row[:, None]) * heads + head) * WIDTH + depth[None, :]
        line = (batch * heads + head) * length + row
        queries = tl.load(
            query + batch * query_b + head * query_h + row[:, None] * query_s + depth[None, :],
            mask=wide, other=0.0,
        )  # fmt: skip
        outputs = tl.load(output + place, mask=wide, other=0.0).to(tl.float32)
        gradients = tl.load(output_grad + place, mask=wide, other=0.0)
        product = tl.sum(outputs * gradients.to(tl.float32), 1)
        tl.store(products + line, product, mask=inside)
        sums = tl.load(log_sums + line, mask=inside, other=0.0)
        key += batch * key_b + (head // GROUP) * key_h
        value += batch * value_b + (head // GROUP) * value_h
        result = tl.zeros([ROWS, WIDTH], tl.float32)
        for start in range(tl.min(first), tl.max(last) + 1, COLS):
            col = start + tl.arange(0, COLS)
            there = (col < length)[:, None]
            keys = tl.load(key + col[:, None] * key_s + depth[None, :], mask=there, other=0.0)
            values = tl.load(value + col[:, None] * value_s + depth[None, :], mask=there, other=0.0)
            seen = (col[None, :] >= first[:, None]) & (col[None, :] <= last[:, None])
            scores = tl.dot(queries, tl.trans(keys)) * scale
            weights = tl.where(seen, tl.exp2(scores - sums[:, None]), 0.0)
            slope = weights * (tl.dot(gradients, tl.trans(values)) - product[:, None])
            result = tl.dot(slope.to(keys.dtype), keys, result)
        tl.store(query_grad + place, (result * scaling).to(query_grad.dtype.element_ty), mask=wide)

    @triton.jit  # type: ignore[untyped-decorator]
    def _key_gradient_kernel(  # type: ignore[no-untyped-def]
        query, key, value, output_grad, log_sums, products, key_grad, value_grad, runs,
        query_b, query_h, query_s, key_b, key_h, key_s, value_b, value_h, value_s, runs_b,
        length, heads, scale, scaling,
        GROUP: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ):  # fmt: skip
        # One program: COLS keys of one key head over the queries, ROWS at a time, that see them.
        group, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
        col = tl.program_id(0) * COLS + tl.arange(0, COLS)
        depth = tl.arange(0, WIDTH)
        inside = col < length
        wide = inside[:, None]
        first = tl.load(runs + batch * runs_b + 2 * length + col, mask=inside, other=length)
        last = tl.load(runs + batch * runs_b + 3 * length + col, mask=inside, other=-1)
        keys = tl.load(
            key + batch * key_b + group * key_h + col[:, None] * key_s + depth[None, :],
            mask=wide, other=0.0,
        )  # fmt: skip
        values = tl.load(
            value + batch * value_b + group * value_h + col[:, None] * value_s + depth[None, :],
            mask=wide, other=0.0,
        )  # fmt: skip
        of_keys = tl.zeros([COLS, WIDTH], tl.float32)
        of_values = tl.zeros([COLS, WIDTH], tl.float32)
        low, high = tl.min(first), tl.max(last) + 1
        for member in range(GROUP):
            head = group * GROUP + member
            for start in range(low, high, ROWS):
                row = start + tl.arange(0, ROWS)
                there = row < length
                queries = tl.load(
                    query + batch * query_b + head * query_h + row[:, None] * query_s
                    + depth[None, :], mask=there[:, None], other=0.0,
                )  # fmt: skip
                gradients = tl.load(
                    output_grad + ((batch * length + row[:, None]) * heads + head) * WIDTH
                    + depth[None, :], mask=there[:, None], other=0.0,
                )  # fmt: skip
                line = (batch * heads + head) * length + row
                sums = tl.load(log_sums + line, mask=there, other=0.0)
                product = tl.load(products + line, mask=there, other=0.0)
                seen = (row[None, :] >= first[:, None]) & (row[None, :] <= last[:, None])
                scores = tl.dot(keys, tl.trans(queries)) * scale  # (COLS, ROWS)
                weights = tl.where(seen, tl.exp2(scores - sums[None, :]), 0.0)
                of_values = tl.dot(weights.to(gradients.dtype), gradients, of_values)
                slope = weights * (tl.dot(values, tl.trans(gradients)) - product[None, :])
                of_keys = tl.dot(slope.to(queries.dtype), queries, of_keys)
        groups = heads // GROUP
        place = ((batch * length + col[:, None]) * groups + group) * WIDTH + depth[None, :]
        tl.store(key_grad + place, (of_keys * scaling).to(key_grad.dtype.element_ty), mask=wide)
        tl.store(value_grad + place, of_values.to(value_grad.dtype.element_ty), mask=wide)

    LOG2_E = 1.4426950408889634

    def _strides(*tensors: Tensor) -> list[int]:
        return [tensor.stride(axis) for tensor in tensors for axis in range(3)]

    def _tile(width: int, kernel: str) -> dict[str, int]:
        """Tile sides, warps and pipeline stages that were fastest for a head width on H200."""
        if width > 128:
            return {"ROWS": 32, "COLS": 32, "num_warps": 4, "num_stages": 2}
        return TILES[kernel]

    TILES = {
        "forward": {"ROWS": 64, "COLS": 32, "num_warps": 4, "num_stages": 2},
        "query": {"ROWS": 64, "COLS": 64, "num_warps": 4, "num_stages": 2},
        "key": {"ROWS": 64, "COLS": 64, "num_warps": 4, "num_stages": 2},
    }

    @torch.library.custom_op("tripletune::attend_runs", mutates_args=())
    def _attend(
        query: Tensor, key: Tensor, value: Tensor, runs: Tensor, scaling: float
    ) -> tuple[Tensor, Tensor]:
        batch, heads, length, width = query.shape
        output = query.new_empty(batch, length, heads, width)
        log_sums = query.new_empty(batch, heads, length, dtype=torch.float32)
        tile = _tile(width, "forward")
        _forward_kernel[(triton.cdiv(length, tile["ROWS"]), heads, batch)](
            query, key, value, output, log_sums, runs,
            *_strides(query, key, value), runs.stride(0),
            length, heads, scaling * LOG2_E, GROUP=heads // key.shape[1], WIDTH=width, **tile,
        )  # fmt: skip
        return output, log_sums

    @_attend.register_fake
    def _(
        query: Tensor, key: Tensor, value: Tensor, runs: Tensor, scaling: float
    ) -> tuple[Tensor, Tensor]:
        batch, heads, length, width = query.shape
        sums = query.new_empty(batch, heads, length, dtype=torch.float32)
        return query.new_empty(batch, length, heads, width), sums

    @torch.library.custom_op("tripletune::attend_runs_backward", mutates_args=())
    def _attend_backward(
        output_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, runs: Tensor,
        output: Tensor, log_sums: Tensor, scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        batch, heads, length, width = query.shape
        groups = key.shape[1]
        output_grad = output_grad.contiguous()
        query_grad = query.new_empty(batch, length, heads, width)
        key_grad = key.new_empty(batch, length, groups, width)
        value_grad = value.new_empty(batch, length, groups, width)
        products = torch.empty_like(log_sums)
        strides = (*_strides(query, key, value), runs.stride(0))
        sizes = (length, heads, scaling * LOG2_E, scaling)
        tile = _tile(width, "query")
        _query_gradient_kernel[(triton.cdiv(length, tile["ROWS"]), heads, batch)](
            query, key, value, output, output_grad, log_sums, products, query_grad, runs,
            *strides, *sizes, GROUP=heads // groups, WIDTH=width, **tile,
        )  # fmt: skip
        tile = _tile(width, "key")
        _key_gradient_kernel[(triton.cdiv(length, tile["COLS"]), groups, batch)](
            query, key, value, output_grad, log_sums, products, key_grad, value_grad, runs,
            *strides, *sizes, GROUP=heads // groups, WIDTH=width, **tile,
        )  # fmt: skip
        return query_grad, key_grad, value_grad

    @_attend_backward.register_fake
    def _(
        output_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, runs: Tensor,
        output: Tensor, log_sums: Tensor, scaling: float,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        batch, heads, length, width = query.shape
        groups = key.shape[1]
        return (
            query.new_empty(batch, length, heads, width),
            key.new_empty(batch, length, groups, width),
            value.new_empty(batch, length, groups, width),
        )

    def _save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
        query, key, value, runs, ctx.scaling = inputs
        ctx.save_for_backward(query, key, value, runs, *output)

    def _differentiate(ctx: Any, output_grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        grads = torch.ops.tripletune.attend_runs_backward(
            output_grad, *ctx.saved_tensors, ctx.scaling
        )
        by_head = tuple(grad.transpose(1, 2) for grad in grads)
        return (*by_head, None, None)

    _attend.register_autograd(_differentiate, setup_context=_save_inputs)
