from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tripletune.extraction.slot_memory as area
from tests.extraction.builders import build_chatglm, build_chatglm2, build_llama, build_sliding
from tripletune.extraction.slot_memory import count_prompt_tokens, count_slots, round_places
from tripletune.training.memory import _forward_bytes
from tripletune.training.network_size import describe_network

BUILDERS = {
    "chatglm": build_chatglm,
    "chatglm2": build_chatglm2,
    "llama": build_llama,
    "gemma3": build_sliding,
}


def put_on_gpu(model: Any) -> Any:
    """The model as if it were on a GPU in half precision."""
    return SimpleNamespace(
        device=torch.device("cuda:0"),
        dtype=torch.bfloat16,
        config=model.config,
        modules=model.modules,
    )


@pytest.fixture
def free(monkeypatch):
    """Sets the bytes that are free."""

    def put(num_bytes: int) -> None:
        monkeypatch.setattr(area, "find_free_bytes", lambda device: num_bytes)

    return put


@pytest.mark.parametrize(("tokens", "places"), [(1, 64), (64, 64), (65, 128)])
def test_places_are_multiples_of_64(tokens: int, places: int) -> None:
    assert round_places(tokens) == places


# Layers, times keys and values, heads of keys, width of a head, bytes.
@pytest.mark.parametrize(
    ("name", "bytes_a_token"), [("chatglm", 2 * 2 * 2 * 16 * 2), ("chatglm2", 2 * 2 * 2 * 8 * 2)]
)
def test_slots_take_seven_tenths_of_what_is_free(name: str, bytes_a_token: int, free: Any) -> None:
    free(10 * 64 * bytes_a_token)
    assert count_slots(put_on_gpu(BUILDERS[name]()), 64) == 7
    free(0)
    assert count_slots(put_on_gpu(BUILDERS[name]()), 64) == 1


def test_memory_of_a_processor_is_not_looked_at(free: Any) -> None:
    free(0)
    model = build_chatglm()
    assert count_slots(model, 64) == 2**31
    assert count_prompt_tokens(model, 4, 64) == 16384


def test_prompts_are_read_in_what_the_slots_leave(free: Any) -> None:
    model = put_on_gpu(build_chatglm())
    slots = 4 * 64 * (2 * 2 * 2 * 16 * 2)
    each = 2 * (2 * 32 + 4 * 96) + 20 * 32  # 96: queries, keys and values together
    free(slots + 1000 * each)
    assert count_prompt_tokens(model, 4, 64) == 600
    free(slots)
    assert count_prompt_tokens(model, 4, 64) == 1
    free(slots + 10**12)
    assert count_prompt_tokens(model, 4, 64) == 16384


def test_scores_that_are_written_out_take_memory(free: Any) -> None:
    model = build_chatglm()
    model.config._attn_implementation = "eager"
    free(10**6)
    without = count_prompt_tokens(put_on_gpu(build_chatglm()), 0, 512)
    assert count_prompt_tokens(put_on_gpu(model), 0, 512) < without / 5


@pytest.mark.parametrize("name", BUILDERS)
def test_tokens_take_no_more_than_is_reckoned_with(name: str) -> None:
    """The forward pass as the memory plan of training has it, which was measured."""
    model = BUILDERS[name]()
    size = describe_network(model, rank=2, target_modules="all-linear", quantize=False)
    reckoned = area._find_reading_bytes(put_on_gpu(model), 64)
    assert _forward_bytes(size) < reckoned < 5 * _forward_bytes(size)
