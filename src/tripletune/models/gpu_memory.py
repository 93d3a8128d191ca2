"""How much of a GPU's memory is left to this process."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["find_available_bytes", "find_free_bytes", "find_uncached_bytes"]


def find_available_bytes(device: Any) -> int:
    """What the process can have altogether: what is free, and what it holds already.

    Never more than `torch.cuda.set_per_process_memory_fraction` leaves it.
    """
    free, total = torch.cuda.mem_get_info(device)
    most = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    return min(free + torch.cuda.memory_reserved(device), most)


def find_free_bytes(device: Any) -> int:
    """What new tensors can have: what is free, and what PyTorch keeps of tensors that are gone."""
    return max(0, find_available_bytes(device) - torch.cuda.memory_allocated(device))


def find_uncached_bytes(device: Any) -> int:
    """What is free beside what PyTorch keeps of tensors that are gone."""
    return max(0, find_available_bytes(device) - torch.cuda.memory_reserved(device))
