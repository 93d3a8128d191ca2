from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tripletune.extraction.slot_memory as area
from tests.extraction.builders import build_chatglm, build_chatglm2, build_llama, build_sliding
from tripletune.extraction.slot_memory import (
    count_prompt_tokens,
    count_slots,
    find_room,
    round_places,
)
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


@pytest.mark.parametrize(("tokens", "places"), [(1, 64), (64, 64), (65, 128)])
def test_places_are_multiples_of_64(tokens: int, places: int) -> None:
    assert round_places(tokens) == places


def test_room_is_what_is_free_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area, "find_free_bytes", lambda device: 1000 + device.index)
    assert find_room(put_on_gpu(build_chatglm())) == 1000
    assert find_room(build_chatglm()) is None


def test_models_without_attention_need_no_room() -> None:
    model = build_chatglm()
    model.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(num_hidden_layers=2))
    assert find_room(put_on_gpu(model)) is None


# Layers, times keys and values, heads of keys, width of a head, bytes.
@pytest.mark.parametrize(
    ("name", "bytes_a_token"), [("chatglm", 2 * 2 * 2 * 16 * 2), ("chatglm2", 2 * 2 * 2 * 8 * 2)]
)
def test_slots_take_seven_tenths_of_the_room(name: str, bytes_a_token: int) -> None:
    model = put_on_gpu(BUILDERS[name]())
    assert count_slots(model, 64, 10 * 64 * bytes_a_token) == 7
    assert count_slots(model, 64, 0) == 1


def test_memory_that_is_not_looked_at_limits_nothing() -> None:
    model = build_chatglm()
    assert count_slots(model, 64, None) == 2**31
    assert count_prompt_tokens(model, 4, 64, None) == 16384


def test_prompts_are_read_in_what_the_slots_leave() -> None:
    model = put_on_gpu(build_chatglm())
    slots = 4 * 64 * (2 * 2 * 2 * 16 * 2)
    each = 2 * (2 * 32 + 4 * 96) + 20 * 32  # 96: queries, keys and values together
    assert count_prompt_tokens(model, 4, 64, slots + 1000 * each) == 600
    assert count_prompt_tokens(model, 4, 64, slots) == 1
    assert count_prompt_tokens(model, 4, 64, slots + 10**12) == 16384


class Linear4bit(torch.nn.Module):
    """Stands for bitsandbytes' layer of this name."""

    in_features, out_features = 100, 30


def test_weight_that_a_record_dequantises_is_left_room() -> None:
    plain, model = build_chatglm(), build_chatglm()
    model.add_module("packed", Linear4bit())
    each, weight = 64 * 2 * 2 * 2 * 16 * 2, 2 * 100 * 30
    room = 10 * each + weight
    assert count_slots(put_on_gpu(model), 64, room) == 7
    left = count_prompt_tokens(put_on_gpu(plain), 4, 64, room - weight)
    assert count_prompt_tokens(put_on_gpu(model), 4, 64, room) == left
    assert count_prompt_tokens(put_on_gpu(model), 4, 64, weight) == 1


def test_scores_that_are_written_out_take_memory() -> None:
    model = build_chatglm()
    model.config._attn_implementation = "eager"
    without = count_prompt_tokens(put_on_gpu(build_chatglm()), 0, 512, 10**6)
    assert count_prompt_tokens(put_on_gpu(model), 0, 512, 10**6) < without / 5


@pytest.mark.parametrize("name", BUILDERS)
def test_tokens_take_no_more_than_is_reckoned_with(name: str) -> None:
    """The forward pass as the memory plan of training has it, which was measured."""
    model = BUILDERS[name]()
    size = describe_network(model, rank=2, target_modules="all-linear", quantize=False)
    reckoned = area._find_reading_bytes(put_on_gpu(model), 64)
    assert _forward_bytes(size) < reckoned < 5 * _forward_bytes(size)
