"""Queries, keys and values from one projection, rotated on the way, as one pass over memory.

A fused projection gives every token's queries, keys and values side by side. Splitting and rotating
them as tensor operations takes several passes forward, and backward as many to put the gradient
together again; the kernel here takes one each. It serves training on packed rows, on CUDA.

Where LoRA adapts the projection, the low-rank product is multiplied and added on the way, too,
instead of in a pass of its own over the widest tensor of a block.

A head's elements are rotated in pairs (a, b), to (a cos - b sin, b cos + a sin). Pair i is elements
i and i + P of the block of 2P elements that it lies in: P is 1 for neighbouring pairs, D/4 where
each half of a head is rotated by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tripletune.models.low_rank import find_low_rank_gradients

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: the networks split and rotate by themselves
    triton = None

__all__ = ["LowRankSum", "project_apart", "split_heads"]

LARGEST_RANK = 32
"""Of a low-rank product that is added on the way; a larger one would crowd out the rest."""


class LowRankSum(NamedTuple):
    """A sum that has not been added up yet: `frozen + inner @ up.T`.

    Attributes:
        frozen: (B, S, F).
        inner: (B, S, R), R at most `LARGEST_RANK`.
        up: (F, R).
    """

    frozen: Tensor
    inner: Tensor
    up: Tensor


def project_apart(layer: nn.Module, x: Tensor) -> Tensor | LowRankSum:
    """What a linear layer makes of x, as a `LowRankSum` if it is adapted and gives one."""
    forward_apart = getattr(layer, "forward_apart", None)
    projected: Tensor | LowRankSum = layer(x) if forward_apart is None else forward_apart(x)
    return projected


def split_heads(
    mixed: Tensor | LowRankSum, cosine: Tensor, sine: Tensor, *, heads: int, groups: int,
    by_head: bool, distance: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Rotated queries, rotated keys, and values; differentiable in `mixed`.

    Args:
        mixed: (B, S, (heads + 2 groups) D) on CUDA, contiguous; or a sum of that shape.
        cosine: (B or 1, S, D/2) fp32, for every pair.
        sine: Likewise.
        heads: Of queries.
        groups: Heads of keys and of values.
        by_head: Whether a head's query, key and value lie together (then `groups` is `heads`);
            otherwise all queries come first, then all keys, then all values.
        distance: P above; a power of two.

    Returns:
        (B, S, heads, D), (B, S, groups, D) and (B, S, groups, D), contiguous.
    """
    frozen, inner, up = mixed if isinstance(mixed, LowRankSum) else (mixed, None, None)
    cosine, sine = (t.expand(frozen.shape[0], -1, -1).contiguous() for t in (cosine, sine))
    split: tuple[Tensor, Tensor, Tensor] = torch.ops.tripletune.split_heads(
        frozen, inner, up, cosine, sine, heads, groups, by_head, distance
    )
    return split


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _split_kernel(  # type: ignore[no-untyped-def]
        mixed, query, key, value, cosine, sine, inner, up, tokens, heads, groups, rank,
        WIDTH: tl.constexpr, TOKENS: tl.constexpr, LINES: tl.constexpr, DISTANCE: tl.constexpr,
        BY_HEAD: tl.constexpr, BACKWARD: tl.constexpr, RANK: tl.constexpr,
    ):  # fmt: skip
        # One program: TOKENS tokens of LINES heads, one after another, queries before keys before
        # values. Backward is the same with the angle negated.
        token = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)[:, None]
        pair = tl.arange(0, WIDTH // 2)[None, :]
        first = pair // DISTANCE * (2 * DISTANCE) + pair % DISTANCE
        inside = token < tokens
        total = heads + 2 * groups
        turn = tl.load(cosine + token * (WIDTH // 2) + pair, mask=inside, other=0.0)
        lean = tl.load(sine + token * (WIDTH // 2) + pair, mask=inside, other=0.0)
        lean = -lean if BACKWARD else lean
        if RANK > 0:
            part_of_rank = tl.arange(0, RANK)
            is_part = part_of_rank < rank
            factor = tl.load(
                inner + token * rank + part_of_rank[None, :],
                mask=inside & is_part[None, :], other=0.0,
            )  # fmt: skip
        for step in range(LINES):
            line = tl.program_id(1) * LINES + step
            is_query, is_value = line < heads, line >= heads + groups
            there = inside & (line < total)
            if BY_HEAD:
                place = tl.where(is_query, 3 * line, 3 * ((line - heads) % groups) + 1 + is_value)
            else:
                place = line
            whole = mixed + (token * total + place) * WIDTH
            if is_query:
                part = query + (token * heads + line) * WIDTH
            elif is_value:
                part = value + (token * groups + line - heads - groups) * WIDTH
            else:
                part = key + (token * groups + line - heads) * WIDTH
            source = part if BACKWARD else whole
            target = whole if BACKWARD else part
            left = tl.load(source + first, mask=there, other=0.0).to(tl.float32)
            right = tl.load(source + first + DISTANCE, mask=there, other=0.0).to(tl.float32)
            if RANK > 0:
                column = up + (place * WIDTH + first) * rank + part_of_rank[:, None]
                known = is_part[:, None] & (line < total)
                near = tl.load(column, mask=known, other=0.0)  # (RANK, WIDTH / 2)
                far = tl.load(column + DISTANCE * rank, mask=known, other=0.0)
                left = tl.dot(factor, near, left)
                right = tl.dot(factor, far, right)
            if not is_value:
                left, right = left * turn - right * lean, right * turn + left * lean
            tl.store(target + first, left.to(mixed.dtype.element_ty), mask=there)
            tl.store(target + first + DISTANCE, right.to(mixed.dtype.element_ty), mask=there)

    def _launch(
        mixed: Tensor, parts: tuple[Tensor, Tensor, Tensor], cosine: Tensor, sine: Tensor,
        by_head: bool, distance: int, *, inner: Tensor | None = None, up: Tensor | None = None,
        backward: bool = False,
    ) -> None:  # fmt: skip
        batch, length, heads, width = parts[0].shape
        groups = parts[1].shape[2]
        tokens = batch * length
        lines = 8
        rank = 0 if up is None else up.shape[1]
        _split_kernel[(triton.cdiv(tokens, 16), triton.cdiv(heads + 2 * groups, lines))](
            mixed, *parts, cosine, sine, inner, up, tokens, heads, groups, rank, WIDTH=width,
            TOKENS=16, LINES=lines, DISTANCE=distance, BY_HEAD=by_head, BACKWARD=backward,
            RANK=max(16, triton.next_power_of_2(rank)) if rank else 0,
        )  # fmt: skip

    @torch.library.custom_op("tripletune::split_heads", mutates_args=())
    def _split(
        mixed: Tensor, inner: Tensor | None, up: Tensor | None, cosine: Tensor, sine: Tensor,
        heads: int, groups: int, by_head: bool, distance: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        parts = _make_parts(mixed, heads, groups)
        inner, up = (None if t is None else t.contiguous() for t in (inner, up))
        _launch(mixed.contiguous(), parts, cosine, sine, by_head, distance, inner=inner, up=up)
        return parts

    def _make_parts(mixed: Tensor, heads: int, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, total = mixed.shape
        width = total // (heads + 2 * groups)
        return (
            mixed.new_empty(batch, length, heads, width),
            mixed.new_empty(batch, length, groups, width),
            mixed.new_empty(batch, length, groups, width),
        )

    @_split.register_fake
    def _(
        mixed: Tensor, inner: Tensor | None, up: Tensor | None, cosine: Tensor, sine: Tensor,
        heads: int, groups: int, by_head: bool, distance: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        return _make_parts(mixed, heads, groups)

    @torch.library.custom_op("tripletune::split_heads_backward", mutates_args=())
    def _split_backward(
        query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor, by_head: bool,
        distance: int,
    ) -> Tensor:  # fmt: skip
        mixed = _make_whole(query, key)
        parts = (query.contiguous(), key.contiguous(), value.contiguous())
        _launch(mixed, parts, cosine, sine, by_head, distance, backward=True)
        return mixed

    def _make_whole(query: Tensor, key: Tensor) -> Tensor:
        batch, length, heads, width = query.shape
        return query.new_empty(batch, length, (heads + 2 * key.shape[2]) * width)

    @_split_backward.register_fake
    def _(
        query: Tensor, key: Tensor, value: Tensor, cosine: Tensor, sine: Tensor, by_head: bool,
        distance: int,
    ) -> Tensor:  # fmt: skip
        return _make_whole(query, key)

    def _save_inputs(ctx: Any, inputs: Any, output: Any) -> None:
        _, inner, up, cosine, sine, _, _, ctx.by_head, ctx.distance = inputs
        ctx.save_for_backward(inner, up, cosine, sine)

    def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inner, up, cosine, sine = ctx.saved_tensors
        mixed_grad = torch.ops.tripletune.split_heads_backward(
            *gradients, cosine, sine, ctx.by_head, ctx.distance
        )
        inner_grad, up_grad = None, None
        if inner is not None:
            inner_grad, up_grad = find_low_rank_gradients(mixed_grad, inner, up)
        return mixed_grad, inner_grad, up_grad, None, None, None, None, None, None

    _split.register_autograd(_differentiate, setup_context=_save_inputs)
