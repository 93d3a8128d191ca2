from __future__ import annotations

import pytest
import torch

from tripletune.models.gpu_memory import (
    find_available_bytes,
    find_free_bytes,
    find_uncached_bytes,
)


def make_card(monkeypatch, *, free, total, fraction, reserved, allocated):
    values = {
        "mem_get_info": (free, total),
        "get_per_process_memory_fraction": fraction,
        "memory_reserved": reserved,
        "memory_allocated": allocated,
    }
    for name, value in values.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)


def test_what_is_cached_is_available_and_free_but_not_uncached(monkeypatch):
    make_card(monkeypatch, free=10, total=24, fraction=1.0, reserved=8, allocated=5)
    assert find_uncached_bytes("cuda:0") == 10
    assert find_available_bytes("cuda:0") == 18
    assert find_free_bytes("cuda:0") == 13


@pytest.mark.parametrize(
    ("fraction", "uncached", "available", "free"), [(0.5, 4, 12, 7), (0.25, 0, 6, 1)]
)
def test_share_of_the_card_that_a_process_is_held_to_counts(
    monkeypatch, fraction, uncached, available, free
):
    make_card(monkeypatch, free=10, total=24, fraction=fraction, reserved=8, allocated=5)
    assert find_uncached_bytes("cuda:0") == uncached
    assert find_available_bytes("cuda:0") == available
    assert find_free_bytes("cuda:0") == free
