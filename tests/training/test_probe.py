from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tripletune.training.probe import try_micro_batch, undisturbed_randomness


class Network(nn.Module):
    """Draws random numbers of every kind, and may run out of memory."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.error = error
        self.modes: list[bool] = []

    @property
    def device(self) -> torch.device:
        return self.layer.weight.device

    def forward(self, input_ids: torch.Tensor, num_labels: int) -> SimpleNamespace:
        self.modes.append(self.training)
        noise = torch.rand(1) + random.random() + np.random.rand()
        if self.error is not None:
            raise self.error
        return SimpleNamespace(loss=(self.layer(input_ids.float()) * noise).sum() / num_labels)


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


BATCH = {"input_ids": torch.ones(2, 4), "num_labels": 3}


def test_trial_leaves_no_trace():
    network = Network().eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    before = states()
    assert try_micro_batch(network, BATCH) == 0  # a CPU does not count
    assert states() == before
    assert network.modes == [True]
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(weights[n], value) for n, value in network.state_dict().items())


def test_trial_that_runs_out_of_memory_says_so_and_leaves_no_trace():
    network = Network(torch.OutOfMemoryError("CUDA out of memory."))
    before = states()
    assert try_micro_batch(network, BATCH) is None
    assert states() == before
    assert network.training


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shape mismatch"):
        try_micro_batch(Network(RuntimeError("shape mismatch")), BATCH)


def draw_and_fail():
    with undisturbed_randomness(torch.device("cpu")):
        torch.rand(3)
        random.random()
        raise KeyError


def test_randomness_is_put_back_after_an_error():
    before = states()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert states() == before
