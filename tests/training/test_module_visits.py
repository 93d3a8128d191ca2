from __future__ import annotations

import copy

import torch
from torch import nn

from tripletune.training.module_visits import leave_out_visits


def make_model() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    leave_out_visits(model, [p for p in model.parameters() if p.requires_grad])
    return model


def test_switching_the_mode_reaches_every_module():
    model = make_model()
    for mode in (False, True):
        assert model.train(mode) is model
        assert [module.training for module in model.modules()] == [mode] * 4
    model.eval()
    assert not any(module.training for module in model.modules())


def test_a_model_that_is_in_the_mode_is_not_visited(monkeypatch):
    model = make_model()
    visited = []
    monkeypatch.setattr(nn.Dropout, "train", lambda self, mode=True: visited.append(mode))
    model.train()
    assert visited == []
    model.eval()
    assert visited == [False]


def test_gradients_are_cleared_or_zeroed():
    model = make_model()
    model(torch.ones(1, 2)).sum().backward()
    assert [p.grad is None for p in model.parameters()] == [True, True, False, False]
    model.zero_grad(set_to_none=False)
    assert [p.grad is None for p in model.parameters()] == [True, True, False, False]
    assert not any(p.grad.any() for p in model[2].parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_a_copy_of_the_model_is_switched_and_cleared_by_itself():
    model = make_model()
    model(torch.ones(1, 2)).sum().backward()
    copied = copy.deepcopy(model)
    copied.eval()
    copied.zero_grad()
    assert (model.training, copied.training) == (True, False)
    assert [p.grad is None for p in model[2].parameters()] == [False, False]
    assert [p.grad is None for p in copied[2].parameters()] == [True, True]
