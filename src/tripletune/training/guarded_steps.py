"""A Trainer whose steps come through too little memory and through losses that are no number.

- A micro-batch that does not fit the memory is done in pieces, with the same gradient;
- a step whose gradients are not finite changes nothing and is counted; several in a row end it all.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback

from tripletune.errors import ResourceError
from tripletune.training.faults import is_out_of_memory, num_examples_in, split_batch
from tripletune.training.module_visits import leave_out_visits

__all__ = ["MAX_BAD_STEPS", "GuardedTrainer"]

logger = logging.getLogger("tripletune")

MAX_BAD_STEPS = 5
"""Steps in a row whose gradients are not finite, after which the run ends."""


class GuardedTrainer(Trainer):
    """See the module."""

    # Never None here, whatever the Trainer's own annotations allow.
    args: Any
    model: Any
    train_dataset: Any
    eval_dataset: Any
    data_collator: Any
    processing_class: Any
    compute_loss_context_manager: Any
    store_flos: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._window: list[dict[str, Any]] = []
        self._done_in_window = 0
        self._bad_steps_in_a_row = 0
        self._loss_was_bad = False
        self._norm: Tensor | None = None
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        leave_out_visits(self.model, self._trainable)
        self.skipped_steps = 0
        """Steps that changed nothing because their gradients were not finite."""
        self.num_pieces = 1
        """In how many pieces each micro-batch is done, above 1 once memory did not suffice."""
        self.add_callback(_StepGuard(self))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer; remembers the micro-batches of the step, in case it must be repeated."""
        samples, num_items = super().get_batch_samples(*args, **kwargs)
        self._window, self._done_in_window = samples, 0
        return samples, num_items

    def training_step(
        self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """As the Trainer; a batch that does not fit the memory is done in pieces."""
        loss: Tensor | None = None
        reason = ""
        try:
            loss = self._step_in_pieces(model, inputs, *args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.args.world_size > 1:
                raise
            reason = str(error).strip().split("\n")[0]
        # Outside the handler, whose traceback keeps the activations alive.
        if loss is None:
            loss = self._repeat_in_pieces(reason, model, inputs, *args, **kwargs)
        self._done_in_window += 1
        if self._is_scaled:
            self._loss_was_bad |= not bool(torch.isfinite(loss))
        # The Trainer's own filter waits for the GPU; what it logs for a loss is the same.
        mean = self._tr_loss / (1 + self.state.global_step - self._globalstep_last_logged)
        return torch.where(torch.isfinite(loss), loss, mean)

    @property
    def _is_scaled(self) -> bool:
        """Whether losses are scaled, as in fp16: an overflow is ordinary then."""
        return getattr(self.accelerator, "scaler", None) is not None

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = self.accelerator.clip_grad_norm_(self._trainable, self.args.max_grad_norm)
        self._norm = norm
        return norm

    def _step_in_pieces(
        self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        if self.num_pieces == 1:
            loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
            return loss
        parts = split_batch(inputs, self.num_pieces)
        losses = [
            super(GuardedTrainer, self).training_step(model, p, *args, **kwargs) for p in parts
        ]
        return torch.stack(losses).sum()

    def _repeat_in_pieces(
        self, reason: str, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Does the step's micro-batches up to this one again, in twice as many pieces."""
        most = num_examples_in(inputs)
        while self.num_pieces < most:
            self.num_pieces = min(2 * self.num_pieces, most)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logger.warning(
                "显存不足 (%s)：第 %d 步的微批次分成 %d 份重做，有效批次大小不变，样本不变",
                reason,
                self.state.global_step + 1,
                self.num_pieces,
            )
            # A failed backward pass leaves part of a gradient behind.
            model.zero_grad()
            try:
                for earlier in self._window[: self._done_in_window]:
                    self._step_in_pieces(model, earlier, *args, **kwargs)
                return self._step_in_pieces(model, inputs, *args, **kwargs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        raise ResourceError(
            f"memory: one example does not fit ({reason}); use a shorter --max_source_length, a "
            "smaller model or --config small, then continue with --resume_from_checkpoint auto"
        )

    def check_gradients(self) -> None:
        """Drops the step's gradients when they are not finite, and counts the step.

        Raises:
            ResourceError: `MAX_BAD_STEPS` steps in a row were so.
        """
        norm, self._norm = self._norm, None
        if norm is None:
            gradients = [p.grad for p in self._trainable if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
        # The scaler itself skips a step with an overflow.
        bad = self._loss_was_bad if self._is_scaled else not bool(torch.isfinite(norm))
        self._loss_was_bad = False
        if not bad:
            self._bad_steps_in_a_row = 0
            return
        if not self._is_scaled:
            self.model.zero_grad(set_to_none=True)
        self.skipped_steps += 1
        self._bad_steps_in_a_row += 1
        step = self.state.global_step + 1
        logger.warning(
            "第 %d 步的损失或梯度不是有限数，跳过这一步 (共跳过 %d 步)", step, self.skipped_steps
        )
        if self._bad_steps_in_a_row >= MAX_BAD_STEPS:
            raise ResourceError(
                f"loss: not finite in {MAX_BAD_STEPS} steps in a row, up to step {step}; they "
                f"changed no weights. Last checkpoint: {self._last_checkpoint_name()}; use a lower "
                f"--learning_rate (now {self.args.learning_rate!r}) or check the data, then "
                "continue with --resume_from_checkpoint auto"
            )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the Trainer; the norm of a skipped step, which is no number, is left out."""
        norm = logs.get("grad_norm")
        if norm is not None and not np.isfinite(float(norm)):
            logs.pop("grad_norm")
        super().log(logs, *args, **kwargs)

    def _last_checkpoint_name(self) -> str:
        return "none"


class _StepGuard(TrainerCallback):
    """Has the trainer look at the gradients before each optimizer step."""

    def __init__(self, trainer: GuardedTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after clipping."""
        self._trainer.check_gradients()
