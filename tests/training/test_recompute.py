from __future__ import annotations

import pytest
import torch

from tests.training.test_fast_layers import IDS, LABELS, make_model
from tripletune.training.fast_layers import speed_up_linear_layers
from tripletune.training.recompute import checkpoint_blocks


def run(model) -> tuple[float, dict[str, torch.Tensor], int]:
    """Loss, gradients, and bytes that the forward pass saved."""
    saved = 0

    def note(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    model.zero_grad()
    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=IDS, labels=LABELS).loss
    before = saved
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, before


@pytest.fixture(scope="module")
def model():
    model = make_model(dropout=0.5)
    speed_up_linear_layers(model, dtype=torch.float32, keep_weights=False)
    return model.train()


@pytest.mark.parametrize("count", [1, 2])
def test_recomputing_changes_no_loss_and_no_gradient_and_saves_less(model, count):
    assert checkpoint_blocks(model, 0) == 2
    loss, gradients, saved = run(model)
    checkpoint_blocks(model, count)
    again, same, less = run(model)
    assert again == loss
    assert same.keys() == gradients.keys()
    assert all(torch.equal(same[name], gradients[name]) for name in gradients)
    assert less < saved


def test_each_block_more_saves_less(model):
    saved = []
    for count in range(3):
        checkpoint_blocks(model, count)
        saved.append(run(model)[2])
    assert saved == sorted(saved, reverse=True)
    assert len(set(saved)) == 3
