from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from tripletune.models.streaming import iter_generated_ids


class FakeModel:
    """Generates 10, 11, 12, ... as `generate` does: streamer first, stopping criteria after."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count = count
        self.fails_at = fails_at
        self.generated = 0
        self.settings: dict[str, Any] = {}

    def generate(self, input_ids, streamer, stopping_criteria, **settings) -> None:
        self.settings = settings
        streamer.put(input_ids)
        for index in range(self.count):
            if index == self.fails_at:
                raise RuntimeError("out of memory")
            streamer.put(torch.tensor([10 + index]))
            self.generated += 1
            if bool(stopping_criteria(input_ids, None).any()):
                break
        streamer.end()


def test_new_ids_are_yielded_without_the_prompt():
    model = FakeModel(3)
    assert list(iter_generated_ids(model, torch.tensor([[1, 2]]), top_p=0.5)) == [10, 11, 12]
    assert model.settings == {"top_p": 0.5}


def test_error_is_raised_after_the_ids_before_it():
    ids = iter_generated_ids(FakeModel(3, fails_at=2), torch.tensor([[1]]))
    assert [next(ids), next(ids)] == [10, 11]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(ids)


def test_leaving_early_stops_the_generation():
    model = FakeModel(1_000_000)
    ids = iter_generated_ids(model, torch.tensor([[1]]))
    next(ids)
    ids.close()
    assert model.generated < 1_000_000
    assert not [thread for thread in threading.enumerate() if thread.name == "generate"]


def test_given_stopping_criteria_are_kept():
    def stop_now(input_ids, scores, **kwargs):
        return torch.ones(1, dtype=torch.bool)

    ids = iter_generated_ids(FakeModel(5), torch.tensor([[1]]), stopping_criteria=[stop_now])
    assert list(ids) == [10]
