from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from tripletune.training.sharded_trainer import ShardedTrainer


class Full(ShardedTrainer):
    """Has no memory for any batch; counts how often it was tried."""

    def __init__(self) -> None:
        self.num_tries = 0

    def _summed_loss_at_once(self, batch: dict[str, Any]) -> float:
        self.num_tries += 1
        raise MemoryError


def test_sharded_trainer_gives_up_a_batch_that_does_not_fit(monkeypatch):
    split = "tripletune.training.trainer.split_batch"
    monkeypatch.setattr(split, lambda batch, number: [batch, batch])
    trainer = Full()
    with pytest.raises(MemoryError):
        trainer._summed_loss({})
    # Halves would leave the other processes in the middle of a pass.
    assert trainer.num_tries == 1


def test_sharded_trainer_wraps_for_training_alone():
    trainer = Full()
    trainer.model = model = nn.Linear(1, 1)
    assert trainer._wrap_model(model, training=False) is model
