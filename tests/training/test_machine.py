from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from config.train_config_simple import TrainingConfig
from tripletune.config import TrainingSettings
from tripletune.training import machine
from tripletune.training.machine import (
    adapt_to_machine,
    detect_preset,
    gpu_memory_gib,
    keep_micro_batch,
    settings_for_machine,
)


def adapt(settings: TrainingSettings, *explicit: str, has_gpu: bool):
    return adapt_to_machine(settings, explicit=set(explicit), has_gpu=has_gpu)


def test_a_gpu_leaves_the_settings_as_they_are():
    settings = TrainingSettings()
    assert adapt(settings, has_gpu=True) == (settings, [])


def test_without_a_gpu_the_default_model_becomes_the_embedded_one():
    settings, notes = adapt(TrainingSettings(), has_gpu=False)
    assert settings.model_name == "embedded"
    assert (settings.learning_rate, settings.lora_target_modules) == (2e-3, ("query_key_value",))
    assert "没有检测到CUDA GPU" in notes[0]
    assert "THUDM/chatglm-6b" in notes[0]
    assert "learning_rate=0.002, eval_steps=100, save_steps=100" in notes[1]


def test_a_model_that_was_named_is_never_replaced():
    settings, _ = adapt(TrainingSettings(), "model_name", has_gpu=False)
    assert settings.model_name == "THUDM/chatglm-6b"
    other, _ = adapt(TrainingSettings(model_name="models/mine"), has_gpu=False)
    assert other.model_name == "models/mine"


@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_embedded_model_has_its_own_defaults_everywhere(has_gpu):
    settings, notes = adapt(TrainingSettings(model_name="embedded"), has_gpu=has_gpu)
    assert (settings.learning_rate, settings.lora_target_modules) == (2e-3, ("query_key_value",))
    assert "内置小模型使用自己的默认值" in notes[0]


def test_what_the_user_set_is_kept():
    asked = TrainingSettings(model_name="embedded", learning_rate=2e-4)
    settings, _ = adapt(asked, "learning_rate", "lora_target_modules", has_gpu=True)
    assert (settings.learning_rate, settings.lora_target_modules) == (2e-4, ("query_key_value",))


@pytest.mark.parametrize(
    ("batch", "accumulation", "expected"),
    [
        (4, 4, (16, 1)),
        (1, 16, (16, 1)),
        (2, 4, (8, 1)),
        (8, 8, (16, 4)),
        (3, 8, (3, 8)),  # 24 is no multiple of 16
        (32, 2, (32, 2)),
    ],
)
def test_cpu_folds_accumulation_into_the_batch(batch, accumulation, expected):
    asked = TrainingSettings(batch_size=batch, gradient_accumulation_steps=accumulation)
    settings, _ = adapt(asked, has_gpu=False)
    assert (settings.batch_size, settings.gradient_accumulation_steps) == expected
    assert settings.effective_batch_size == asked.effective_batch_size


def test_a_short_run_is_evaluated_and_saved_at_its_end():
    settings, _ = adapt(TrainingSettings(max_steps=20), has_gpu=True)
    assert (settings.eval_steps, settings.save_steps) == (20, 20)


def test_a_long_run_is_evaluated_as_asked():
    settings, _ = adapt(TrainingSettings(max_steps=200), has_gpu=True)
    assert (settings.eval_steps, settings.save_steps) == (50, 50)


def test_gpu_memory_is_none_without_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_memory_gib() is None


def test_gpu_memory_is_in_gib(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    properties = SimpleNamespace(total_memory=24 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    assert gpu_memory_gib() == 24.0


def test_detect_preset_looks_at_the_gpu(monkeypatch):
    monkeypatch.setattr(machine, "gpu_memory_gib", lambda: 40.0)
    assert detect_preset() == ("large", "GPU显存 40.0 GB，不小于 24 GB")


def test_settings_for_machine_logs_each_change(monkeypatch, caplog):
    monkeypatch.setattr(machine, "gpu_memory_gib", lambda: None)
    caplog.set_level(logging.INFO, logger="tripletune")
    config = TrainingConfig()
    config.LEARNING_RATE = 1e-3
    settings = settings_for_machine(config)
    assert (settings.model_name, settings.learning_rate) == ("embedded", 1e-3)
    assert "没有检测到CUDA GPU" in caplog.messages[0]
    assert "learning_rate" not in caplog.messages[1]


def test_micro_batch_that_was_asked_for_does_not_grow():
    settings = TrainingSettings(batch_size=2)
    assert keep_micro_batch(settings, {"seed"}) == settings
    kept = settings.changed(join_micro_batches=False)
    for asked in ({"batch_size"}, {"gradient_accumulation_steps", "seed"}):
        assert keep_micro_batch(settings, asked) == kept
    assert keep_micro_batch(settings, {"batch_size", "join_micro_batches"}) == settings


def test_micro_batch_set_on_a_configuration_does_not_grow():
    config = TrainingConfig()
    assert settings_for_machine(config).join_micro_batches
    config.BATCH_SIZE = 1
    assert not settings_for_machine(config).join_micro_batches
