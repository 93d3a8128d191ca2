"""Which kernels PyTorch's own attention takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["without_cudnn_attention"]


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """Inside, `scaled_dot_product_attention` takes other kernels than cuDNN's.

    From Hopper on PyTorch prefers cuDNN's, which builds a plan for every number of rows and tokens
    that it has not met, on the host: half a second for a forward pass on a B200 (torch 2.11,
    github.com/modelscope/FunASR/issues/3704). Where nearly every batch has a shape of its own that
    takes longer than the batch. The setting is the whole process's.
    """
    backends: Any = torch.backends.cuda
    was_enabled = backends.cudnn_sdp_enabled()
    backends.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        backends.enable_cudnn_sdp(was_enabled)
