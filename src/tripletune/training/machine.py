"""What the machine at hand makes of the settings, said in one plain line for each change."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from tripletune.config import (
    DEFAULT_MODEL,
    EMBEDDED_MODEL,
    Preset,
    TrainingSettings,
    UpperCaseConfig,
    choose_preset,
)

__all__ = [
    "adapt_to_machine",
    "detect_preset",
    "gpu_memory_gib",
    "keep_micro_batch",
    "settings_for_machine",
]

logger = logging.getLogger("tripletune")

EMBEDDED_DEFAULTS: dict[str, Any] = {"learning_rate": 2e-3, "eval_steps": 100, "save_steps": 100}
"""A small network takes larger steps, and is not worth stopping for every 50 of them."""

_CPU_BATCH = 16


def gpu_memory_gib() -> float | None:
    """Total memory of the first GPU in GiB, or None without a CUDA GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory) / 2**30


def detect_preset() -> tuple[Preset, str]:
    """The preset for the GPU at hand, and why."""
    return choose_preset(gpu_memory_gib())


def adapt_to_machine(
    settings: TrainingSettings, *, explicit: Collection[str], has_gpu: bool
) -> tuple[TrainingSettings, list[str]]:
    """Settings that this machine can run, and a line for the user about each change.

    Args:
        settings: As asked for.
        explicit: Names of the fields the user set, which are never changed.
        has_gpu: Whether there is a CUDA GPU.
    """
    changes: dict[str, Any] = {}
    notes: list[str] = []
    model_name = settings.model_name
    if not has_gpu and model_name == DEFAULT_MODEL and "model_name" not in explicit:
        model_name = changes["model_name"] = EMBEDDED_MODEL
        notes.append(
            f"没有检测到CUDA GPU，改为训练内置小模型 embedded；有GPU时默认训练 {DEFAULT_MODEL}"
        )
    if model_name == EMBEDDED_MODEL:
        tuned = {k: v for k, v in EMBEDDED_DEFAULTS.items() if k not in explicit}
        changes |= tuned
        if tuned:
            shown = ", ".join(f"{name}={value}" for name, value in tuned.items())
            notes.append(f"内置小模型使用自己的默认值: {shown}")
    if not has_gpu:
        folded = min(_CPU_BATCH, settings.effective_batch_size)
        if folded > settings.batch_size and settings.effective_batch_size % folded == 0:
            changes["batch_size"] = folded
            changes["gradient_accumulation_steps"] = settings.effective_batch_size // folded
            notes.append(
                f"CPU上把梯度累积并入批次: {folded} x {changes['gradient_accumulation_steps']}，"
                f"有效批次大小仍为 {settings.effective_batch_size}"
            )
        changes["eval_batch_size"] = max(settings.eval_batch_size, _CPU_BATCH)
    if settings.max_steps > 0 and "eval_steps" not in explicit:
        steps = min(settings.eval_steps, settings.max_steps)
        changes["eval_steps"] = steps
        if "save_steps" not in explicit:
            changes["save_steps"] = steps
    return (settings.changed(**changes) if changes else settings), notes


def keep_micro_batch(settings: TrainingSettings, asked: Collection[str]) -> TrainingSettings:
    """Settings whose micro-batch does not grow when its size was asked for.

    Args:
        settings: As put together.
        asked: Names of the fields that the user set, other than by choosing a preset.
    """
    sizes = {"batch_size", "gradient_accumulation_steps"}
    if "join_micro_batches" in asked or not sizes & set(asked):
        return settings
    return settings.changed(join_micro_batches=False)


def settings_for_machine(config: UpperCaseConfig) -> TrainingSettings:
    """The settings of a configuration object on this machine; logs what was changed."""
    settings, notes = adapt_to_machine(
        config.settings(), explicit=config.changed_fields(), has_gpu=gpu_memory_gib() is not None
    )
    for note in notes:
        logger.info(note)
    return keep_micro_batch(settings, {name.lower() for name in vars(config)})
