"""Queries, keys and values from one projection, rotated on the way, as one pass over memory.

A fused projection gives every token's queries, keys and values side by side. Splitting and rotating
them as tensor operations takes several passes forward, and backward as many to put the gradient
together again; the kernel here takes one each. It serves training on packed rows, on CUDA.

A head's elements are rotated in pairs (a, b), to (a cos - b sin, b cos + a sin). Pair i is elements
i and i + P of the block of 2P elements that it lies in: P is 1 for neighbouring pairs, D/4 where
each half of a head is rotated by itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: the networks split and rotate by themselves
    triton = None

__all__ = ["split_heads"]


def split_heads(
    mixed: Tensor, cosine: Tensor, sine: Tensor, *, heads: int, groups: int, by_head: bool,
    distance: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Rotated queries, rotated keys, and values; differentiable in `mixed`.

    Args:
        mixed: (B, S, (heads + 2 groups) D) on CUDA, contiguous.
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
    cosine, sine = (t.expand(mixed.shape[0], -1, -1).contiguous() for t in (cosine, sine))
    split: tuple[Tensor, Tensor, Tensor] = torch.ops.tripletune.split_heads(
        mixed, cosine, sine, heads, groups, by_head, distance
    )
    return split


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _split_kernel(  # type: ignore[no-untyped-def]
        mixed, query, key, value, cosine, sine, tokens, heads, groups,
        WIDTH: tl.constexpr, TOKENS: tl.constexpr, LINES: tl.constexpr, DISTANCE: tl.constexpr,
        BY_HEAD: tl.constexpr, BACKWARD: tl.constexpr,
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
            left = tl.load(source + first, mask=there, other=0.0)
            right = tl.load(source + first + DISTANCE, mask=there, other=0.0)
            if not is_value:
                a, b = left.to(tl.float32), right.to(tl.float32)
                left, right = (
                    (a * turn - b * lean).to(left.dtype), (b * turn + a * lean).to(left.dtype)
                )  # fmt: skip
            tl.store(target + first, left, mask=there)
            tl.store(target + first + DISTANCE, right, mask=there)

    def _launch(
        mixed: Tensor, parts: tuple[Tensor, Tensor, Tensor], cosine: Tensor, sine: Tensor,
        by_head: bool, distance: int, *, backward: bool,
    ) -> None:  # fmt: skip
        batch, length, heads, width = parts[0].shape
        groups = parts[1].shape[2]
        tokens = batch * length
        lines = 8
        _split_kernel[(triton.cdiv(tokens, 16), triton.cdiv(heads + 2 * groups, lines))](
            mixed, *parts, cosine, sine, tokens, heads, groups, WIDTH=width, TOKENS=16,
            LINES=lines, DISTANCE=distance, BY_HEAD=by_head, BACKWARD=backward,
        )  # fmt: skip

    @torch.library.custom_op("tripletune::split_heads", mutates_args=())
    def _split(
        mixed: Tensor, cosine: Tensor, sine: Tensor, heads: int, groups: int, by_head: bool,
        distance: int,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        parts = _make_parts(mixed, heads, groups)
        _launch(mixed.contiguous(), parts, cosine, sine, by_head, distance, backward=False)
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
        mixed: Tensor, cosine: Tensor, sine: Tensor, heads: int, groups: int, by_head: bool,
        distance: int,
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
        _, cosine, sine, _, _, ctx.by_head, ctx.distance = inputs
        ctx.save_for_backward(cosine, sine)

    def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        mixed_grad = torch.ops.tripletune.split_heads_backward(
            *gradients, *ctx.saved_tensors, ctx.by_head, ctx.distance
        )
        return mixed_grad, None, None, None, None, None, None

    _split.register_autograd(_differentiate, setup_context=_save_inputs)
