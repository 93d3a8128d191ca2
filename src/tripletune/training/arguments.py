"""Our settings as the arguments of the `transformers` Trainer."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from transformers import TrainingArguments

from tripletune.config import TrainingSettings

__all__ = ["Arguments", "build_training_arguments"]


class Arguments(TrainingArguments):
    """The Trainer's arguments, with one name for the CPU and one GPU a process."""

    @property
    def device(self) -> torch.device:
        """Where this process trains.

        Under torchrun a CPU is called `cpu:0`, and optimizer states cannot be loaded to that.
        """
        device: torch.device = super().device
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def n_gpu(self) -> int:
        """1 where there are GPUs: a process trains on its own one, and `torchrun` starts several.

        The Trainer would take all GPUs of a machine into one process and multiply the batch by
        their number.
        """
        return min(1, int(super().n_gpu))


def build_training_arguments(settings: TrainingSettings, *, num_examples: int) -> Any:
    """`TrainingArguments` of a run over `num_examples` training examples."""
    on_gpu = torch.cuda.is_available()
    in_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    per_epoch = math.ceil(num_examples / (settings.effective_batch_size * ranks))
    total = settings.max_steps if settings.max_steps > 0 else per_epoch * settings.num_epochs
    return Arguments(
        output_dir=str(settings.output_dir),
        num_train_epochs=settings.num_epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.eval_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        # A short run must not spend itself warming up.
        warmup_steps=min(settings.warmup_steps, max(1, int(total * 0.1))),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        # The model itself is in bf16 where the GPU has it; autocast would only add casts.
        bf16=False,
        fp16=on_gpu and not in_bf16,
        use_cpu=not on_gpu,
        logging_steps=settings.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # `GuardedTrainer` has its own, which does not wait
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=settings.keep_checkpoints,
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        load_best_model_at_end=settings.load_best_model_at_end,
        metric_for_best_model="f1",
        greater_is_better=True,
        report_to="none",  # trackers are callbacks of this package
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        seed=settings.seed,
        data_seed=settings.seed,
    )
