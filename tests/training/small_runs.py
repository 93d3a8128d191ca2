"""Small training runs: 26 sentences, 14 steps, and F1 values that depend on the step alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.trainer_callback import TrainerCallback

from tripletune.config import TrainingSettings, build_settings
from tripletune.training import checkpoints
from tripletune.training.run import TrainingRun

NUM_STEPS = 14
NUM_SENTENCES = 26
F1_AT_STEP = {4: 0.2, 5: 0.25, 8: 0.7, 12: 0.3, 14: 0.4}


def leave_out_slow_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture, and no waiting for the disk: most of a small run's time."""
    monkeypatch.setattr("tripletune.training.callbacks.plot_history", lambda *a: None)
    monkeypatch.setattr(checkpoints, "_flush", lambda path: None)


class Killed(BaseException):
    """Ends a run as a kill would: nothing that handles errors sees it."""


class SmallRun(TrainingRun):
    """A run that does not generate, and calls `at_step(trainer, step)` after every step."""

    def __init__(
        self, settings: TrainingSettings, at_step: Callable[[Any, int], None] | None = None
    ) -> None:
        super().__init__(settings)
        self.at_step = at_step

    def score(self) -> dict[str, float]:
        step = self.trainer.state.global_step
        return {"f1": F1_AT_STEP.get(step, 0.0), "precision": 0.0, "recall": 0.0}

    def _build_trainer(self, stop: Any = None) -> Any:
        trainer = super()._build_trainer(stop)
        if self.at_step is not None:
            trainer.add_callback(_AtStep(trainer, self.at_step))
        return trainer


class _AtStep(TrainerCallback):
    def __init__(self, trainer: Any, action: Callable[[Any, int], None]) -> None:
        self._trainer = trainer
        self._action = action

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._action(self._trainer, state.global_step)


def build_small_settings(folder: Path, model_dir: Path, **changes: Any) -> TrainingSettings:
    data = folder / "data.jsonl"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number in range(NUM_SENTENCES):
            subject, person = f"甲{number}公司", f"乙{number * 7 % 13}"
            text = f"{subject}由{person}创立。" * (1 + number % 3)
            triplet = {"subject": subject, "relation": "创始人", "object": person}
            record = {"text": text, "triplets": [triplet]}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        data.write_text("".join(lines), encoding="utf-8")
    values: dict[str, Any] = {
        "model_name": str(model_dir),
        "train_file": data,
        "validation_file": data,
        "output_dir": folder / "out",
        "num_epochs": 2,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "eval_batch_size": 16,
        "lora_r": 2,
        "learning_rate": 1e-2,
        "logging_steps": 3,
        "save_steps": 4,
        "eval_steps": 4,
        "load_in_4bit": False,
    }
    return build_settings({**values, **changes})


def train(settings: TrainingSettings, at_step: Callable[[Any, int], None] | None = None) -> Any:
    """The trainer of a finished run."""
    run = SmallRun(settings, at_step)
    run.train()
    return run.trainer


def adapter_bytes(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Every logged record, without what depends on the clock."""
    records = json.loads((folder / "training_history.json").read_text(encoding="utf-8"))
    clock = ("runtime", "per_second", "train_loss", "flos")
    return [{k: v for k, v in r.items() if not any(c in k for c in clock)} for r in records]
