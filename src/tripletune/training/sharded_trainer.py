"""Training of a model whose frozen weights are divided among the processes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tripletune.training.sharding import lockstep, wrap_for_gradients
from tripletune.training.trainer import TripletTrainer

__all__ = ["ShardedTrainer"]


class ShardedTrainer(TripletTrainer):
    """As `TripletTrainer`, for a model from `load_sharded`."""

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> Any:
        if not training or model is not self.model:
            return model
        # Mixed precision is accelerate's, which would refuse to add up gradients for this model.
        prepared = self.accelerator.prepare_model(
            model, device_placement=False, evaluation_mode=True
        )
        return wrap_for_gradients(prepared, self.args.device)

    def _sum_losses(self, dataset: Any) -> Tensor:
        with lockstep(self.model):
            return super()._sum_losses(dataset)

    def _summed_loss(self, batch: dict[str, Any]) -> float:
        # What does not fit ends the run: a pass given up half-way leaves the others waiting.
        return self._summed_loss_at_once(batch)
