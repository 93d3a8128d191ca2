"""Cross entropy of whole vocabularies and its gradient, written over the logits, on CUDA.

A row of 130,528 logits is a quarter of a megabyte: the rows at work fit the card's cache, so that
of the kernel's passes over a row only the first reads memory. The gradient takes the logits' place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tripletune.models.current_device import on_device_of

try:
    import triton
    import triton.language as tl
except ImportError:  # no CUDA build of torch: plain operations instead
    triton = None

__all__ = ["has_cross_entropy_kernel", "replace_by_gradient"]


def has_cross_entropy_kernel(device: torch.device) -> bool:
    """Whether `replace_by_gradient` runs there."""
    return triton is not None and device.type == "cuda"


def replace_by_gradient(logits: Tensor, targets: Tensor, *, ignored: int) -> Tensor:
    """The cross entropy of each row; its gradient is written over the logits.

    Args:
        logits: (N, V) contiguous, on CUDA.
        targets: (N,) int64.
        ignored: A target that stands for no label: loss and gradient are 0 there.

    Returns:
        (N,) fp32.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    with on_device_of(logits):
        _cross_entropy_kernel[(rows,)](
            logits, targets.contiguous(), losses, columns, ignored, BLOCK=4096, num_warps=8
        )
    return losses


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def _cross_entropy_kernel(  # type: ignore[no-untyped-def]
        logits, targets, losses, num_columns, ignored, BLOCK: tl.constexpr
    ):
        # One program: one row. Each lane keeps its own maximum and sum until the end.
        row = tl.program_id(0).to(tl.int64)
        line = logits + row * num_columns
        target = tl.load(targets + row)
        is_learnt = target != ignored
        chosen = tl.load(line + tl.where(is_learnt, target, 0)).to(tl.float32)
        log2_e = 1.4426950408889634
        highest = tl.full([BLOCK], -1e30, tl.float32)
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, num_columns, BLOCK):
            column = start + tl.arange(0, BLOCK)
            inside = column < num_columns
            score = tl.load(line + column, mask=inside, other=-1e30).to(tl.float32)
            now = tl.maximum(highest, score)
            weight = tl.where(inside, tl.exp2((score - now) * log2_e), 0.0)
            total = total * tl.exp2((highest - now) * log2_e) + weight
            highest = now
        top = tl.max(highest, 0)
        log_total = top + tl.log(tl.sum(total * tl.exp2((highest - top) * log2_e), 0))
        tl.store(losses + row, tl.where(is_learnt, log_total - chosen, 0.0))
        for start in range(0, num_columns, BLOCK):
            column = start + tl.arange(0, BLOCK)
            inside = column < num_columns
            score = tl.load(line + column, mask=inside, other=0.0).to(tl.float32)
            slope = tl.exp2((score - log_total) * log2_e) - tl.where(column == target, 1.0, 0.0)
            slope = tl.where(is_learnt, slope, 0.0)
            tl.store(line + column, slope.to(logits.dtype.element_ty), mask=inside)
