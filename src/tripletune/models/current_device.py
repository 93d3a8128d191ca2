"""Which GPU kernels run on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

__all__ = ["on_device_of"]


def on_device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Inside, a tensor's GPU is the current one; nothing for a tensor on the CPU.

    PyTorch's own operations find their tensors' GPU. Kernels in Triton, and recorded steps, are for
    the current one, which need not be it where a process has several.
    """
    guard: Any = torch.cuda.device_of
    context: AbstractContextManager[Any] = guard(tensor)
    return context
