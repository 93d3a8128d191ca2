"""A network, its data and settings to plan for, and what ChatGLM-6B is."""

from __future__ import annotations

from typing import Any

import numpy as np

from tripletune.config import TrainingSettings
from tripletune.training.network_size import NetworkSize
from tripletune.training.plan import PlannedRun
from tripletune.training.rows import DataLengths
from tripletune.training.speed import DeviceSpeed

CHATGLM = NetworkSize(
    weight_bytes=3_980_312_576,
    frozen_parameters=5_637_144_576,
    trainable=3_670_016,
    layers=28,
    width=4096,
    query_width=4096,
    key_width=4096,
    heads=32,
    mlp_in=16384,
    mlp_out=16384,
    vocabulary=130_528,
    largest_weight=4096 * 16384,
    norms=(2, True),
    head_norms=False,
    adapted_widths=(4096,),
    adapted_mlp_inputs=(),
    is_native=True,
    rotates_apart=False,
)
CARD = DeviceSpeed("a card", 50e12, 500e9, measured=True)


def build_lengths(prompt: int, answer: int, count: int) -> DataLengths:
    return DataLengths(np.full(count, prompt + answer), np.full(count, answer))


def build_run(
    *, prompt: int = 512, answer: int = 256, size: NetworkSize = CHATGLM, **changes: Any
) -> PlannedRun:
    """ChatGLM-6B on 64 examples of one length; changes are of the settings or the run."""
    fields = {k: changes.pop(k) for k in list(changes) if k in PlannedRun.__dataclass_fields__}
    lengths = build_lengths(prompt, answer, 64)
    values: dict[str, Any] = {
        "settings": TrainingSettings(**changes),
        "size": size,
        "training": lengths,
        "validation": lengths,
        "longest_prompt": prompt,
        "sentences": 64,
        "compiled": False,
    }
    return PlannedRun(**{**values, **fields})
