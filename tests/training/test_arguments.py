from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments

from tripletune.config import TrainingSettings
from tripletune.training.arguments import build_training_arguments


def build(tmp_path, *, num_examples: int = 903, **changes):
    settings = TrainingSettings(output_dir=tmp_path / "out", **changes)
    return build_training_arguments(settings, num_examples=num_examples)


def test_arguments_say_what_the_settings_say(tmp_path):
    arguments = build(
        tmp_path,
        batch_size=2,
        eval_batch_size=3,
        gradient_accumulation_steps=8,
        learning_rate=1e-4,
        lr_scheduler_type="linear",
        num_epochs=2,
        max_steps=30,
        weight_decay=0.5,
        max_grad_norm=0.3,
        seed=7,
        logging_steps=6,
        eval_steps=20,
        save_steps=40,
        keep_checkpoints=5,
    )
    expected = {
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 3,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4,
        "num_train_epochs": 2.0,
        "max_steps": 30,
        "weight_decay": 0.5,
        "max_grad_norm": 0.3,
        "seed": 7,
        "data_seed": 7,
        "logging_steps": 6,
        "eval_steps": 20,
        "save_steps": 40,
        "save_total_limit": 5,
    }
    assert {name: getattr(arguments, name) for name in expected} == expected
    assert arguments.lr_scheduler_type == "linear"


def test_arguments_choose_the_best_by_f1(tmp_path):
    arguments = build(tmp_path)
    assert arguments.load_best_model_at_end
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("f1", True)


@pytest.mark.parametrize(
    ("changes", "num_examples", "warmup"),
    [
        # 903 examples: 57 steps an epoch, 171 in all.
        ({"warmup_steps": 10}, 903, 10),
        ({"warmup_steps": 100}, 903, 17),
        ({"warmup_steps": 100, "max_steps": 50}, 903, 5),
        ({"warmup_steps": 10, "num_epochs": 1}, 8, 1),
        ({"warmup_steps": 0}, 903, 0),
    ],
)
def test_warmup_is_a_tenth_of_the_run_at_most(tmp_path, changes, num_examples, warmup):
    assert build(tmp_path, num_examples=num_examples, **changes).warmup_steps == warmup


def test_warmup_counts_the_steps_of_all_gpus(tmp_path, monkeypatch):
    class Recorded(SimpleNamespace):
        __dataclass_fields__ = TrainingArguments.__dataclass_fields__

    monkeypatch.setattr("tripletune.training.arguments.Arguments", Recorded)
    monkeypatch.setenv("WORLD_SIZE", "2")
    # 903 / (16 * 2) = 29 steps an epoch, 87 in all.
    assert build(tmp_path, warmup_steps=100).warmup_steps == 8


def test_arguments_on_a_cpu_use_neither_half_precision_nor_checkpointing(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = build(tmp_path)
    assert arguments.use_cpu
    assert not arguments.bf16
    assert not arguments.fp16
    assert not arguments.gradient_checkpointing
    assert arguments.optim == "adamw_torch"


def test_arguments_leave_trackers_to_this_package(tmp_path):
    assert build(tmp_path, report_to=("tensorboard",)).report_to == []


def test_cpu_has_no_number_under_torchrun(tmp_path, monkeypatch):
    arguments = build(tmp_path, batch_size=1)
    setup = property(lambda self: torch.device("cpu:0"))
    monkeypatch.setattr(TrainingArguments, "_setup_devices", setup)
    assert arguments.device == torch.device("cpu")


@pytest.mark.parametrize(("found", "used"), [(0, 0), (1, 1), (4, 1)])
def test_process_trains_on_one_gpu_of_several(tmp_path, found, used):
    arguments = build(tmp_path, batch_size=3)
    arguments._n_gpu = found
    assert arguments.n_gpu == used
    assert arguments.train_batch_size == 3
