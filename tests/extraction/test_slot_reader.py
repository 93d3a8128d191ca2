from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.extraction.builders import build_chatglm, build_chatglm2, build_llama, build_sliding
from tripletune.extraction.slot_reader import SlotReader, supports_slots


@pytest.mark.parametrize(
    ("build", "expected"),
    [(build_chatglm, True), (build_chatglm2, True), (build_llama, True), (build_sliding, False)],
)
def test_supports_slots_excludes_sliding_windows(build: Any, expected: bool) -> None:
    assert supports_slots(build()) is expected


def test_slot_reader_takes_a_prompt_into_a_slot_that_was_used() -> None:
    model = build_llama()
    with torch.no_grad():
        reader = SlotReader(model, num_slots=2, num_places=70, pad_token_id=3)
        reader.read_prompts([0, 1], [[5, 6, 7], [8]])
        for token in (9, 10):
            reader.set_tokens([0, 1], torch.tensor([token, token + 10]))
            reader.step()
        first = reader.read_prompts([0], [[11, 12]])
        reader.set_tokens([0, 1], torch.tensor([13, 21]))
        logits = reader.step()
        rows = [[11, 12], [11, 12, 13], [8, 19, 20, 21]]
        expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(first[0], expected[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits, torch.stack(expected[1:]), atol=1e-4, rtol=1e-4)


def test_slot_reader_keeps_the_slots_that_are_named() -> None:
    model = build_chatglm()
    with torch.no_grad():
        reader = SlotReader(model, num_slots=3, num_places=70, pad_token_id=3)
        prompts = [[5, 31, 32], [6, 7, 31, 32], [8, 31, 32]]
        reader.read_prompts([0, 1, 2], prompts)
        reader.select([2, 1])
        assert reader.num_slots == 2
        reader.set_tokens([0, 1], torch.tensor([9, 10]))
        logits = reader.step()
        rows = [[*prompts[2], 9], [*prompts[1], 10]]
        expected = [model(torch.tensor([row])).logits[0, -1] for row in rows]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=1e-4)
