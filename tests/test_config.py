from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from config.train_config_simple import (
    FastTrainingConfig,
    LargeGPUConfig,
    MediumGPUConfig,
    SmallGPUConfig,
    TrainingConfig,
)
from tripletune import config
from tripletune.config import (
    PRESET_VALUES,
    PRESETS,
    TrainingSettings,
    UpperCaseConfig,
    build_settings,
    choose_preset,
)
from tripletune.errors import ConfigError

CLASSES = {
    "small": SmallGPUConfig,
    "medium": MediumGPUConfig,
    "large": LargeGPUConfig,
    "fast": FastTrainingConfig,
}


def test_all_is_there():
    assert [name for name in config.__all__ if not hasattr(config, name)] == []


def test_training_config_has_the_guides_defaults():
    fields = {
        "MODEL_NAME": "THUDM/chatglm-6b",
        "OUTPUT_DIR": "output/chatglm-6b-triplet-qlora",
        "TRAIN_FILE": "data/train_triplet.jsonl",
        "VALIDATION_FILE": "data/val_triplet.jsonl",
        "NUM_EPOCHS": 3,
        "BATCH_SIZE": 4,
        "EVAL_BATCH_SIZE": 4,
        "GRADIENT_ACCUMULATION_STEPS": 4,
        "LEARNING_RATE": 2e-4,
        "LORA_R": 8,
        "LORA_ALPHA": 32,
        "LORA_DROPOUT": 0.1,
        "LORA_TARGET_MODULES": ("query_key_value",),
        "MAX_SOURCE_LENGTH": 512,
        "MAX_TARGET_LENGTH": 256,
        "SEED": 42,
        "GRADIENT_CHECKPOINTING": True,
    }
    assert {name: getattr(TrainingConfig, name) for name in fields} == fields


def test_training_config_settings_are_the_defaults():
    assert TrainingConfig().settings() == TrainingSettings()


@pytest.mark.parametrize("name", CLASSES)
def test_preset_classes_say_the_same_as_preset_values(name):
    assert CLASSES[name]().settings() == build_settings(PRESET_VALUES[name])


def test_presets_are_those_of_the_guide():
    assert PRESETS == ("auto", "small", "medium", "large", "fast")
    assert list(PRESET_VALUES) == list(CLASSES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", (1, 16, 4, 16, 256, 128, 3)),
        ("medium", (4, 4, 8, 32, 512, 256, 3)),
        ("large", (8, 2, 16, 64, 512, 256, 3)),
        ("fast", (2, 4, 8, 32, 512, 256, 1)),
    ],
)
def test_preset_values(name, expected):
    settings = build_settings(PRESET_VALUES[name])
    assert (
        settings.batch_size,
        settings.gradient_accumulation_steps,
        settings.lora_r,
        settings.lora_alpha,
        settings.max_source_length,
        settings.max_target_length,
        settings.num_epochs,
    ) == expected


@pytest.mark.parametrize("name", CLASSES)
def test_presets_keep_the_effective_batch_size_at_8_or_more(name):
    assert build_settings(PRESET_VALUES[name]).effective_batch_size >= 8


def test_default_schedule_fits_a_run_over_903_lines():
    settings = TrainingSettings()
    steps = 903 * settings.num_epochs // settings.effective_batch_size
    assert settings.warmup_steps <= steps / 10
    assert steps / settings.eval_steps >= 3


@pytest.mark.parametrize(
    ("memory_gib", "preset"),
    [
        (None, "fast"),
        (7.6, "small"),
        (11.4, "small"),  # sold as 11 GB
        (11.6, "medium"),  # sold as 12 GB
        (15.7, "medium"),
        (22.0, "medium"),  # sold as 22 GB
        (23.6, "large"),  # sold as 24 GB
        (79.2, "large"),
    ],
)
def test_choose_preset_by_memory(memory_gib, preset):
    chosen, reason = choose_preset(memory_gib)
    assert chosen == preset
    assert ("没有检测到CUDA GPU" if memory_gib is None else f"{memory_gib:.1f} GB") in reason


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        TrainingSettings().batch_size = 2


def test_build_settings_names_all_errors_at_once():
    values = {"batch_size": 0, "learning_rate": "fast", "lora_rr": 4, "long_texts": "cut"}
    with pytest.raises(ConfigError) as error_info:
        build_settings(values)
    lines = str(error_info.value).split("\n")
    assert len(lines) == 4
    assert [line for line in lines if line.startswith("batch_size: 0 is not allowed: ")]
    assert [line for line in lines if line.startswith("learning_rate: 'fast' is not allowed: ")]
    assert [line for line in lines if "'lora_rr'; did you mean LORA_R?" in line]
    assert [line for line in lines if "'cut'" in line and "'drop' or 'shorten'" in line]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_target_modules": ()}, r"lora_target_modules: \(\) adapts nothing"),
        ({"max_steps": 0}, "max_steps: 0 trains nothing; give -1"),
        ({"max_steps": -2}, "max_steps: -2 is not allowed"),
        ({"save_steps": 30, "eval_steps": 20}, "save_steps: 30 is no multiple of eval_steps 20"),
        ({"lora_dropout": 1.0}, "lora_dropout: 1.0 is not allowed"),
        ({"num_epochs": 0}, "num_epochs: 0 is not allowed"),
        ({"max_target_length": 3}, "max_target_length: 3 is not allowed"),
    ],
)
def test_build_settings_rejects_what_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        build_settings(values)


def test_build_settings_allows_any_save_steps_without_the_best_model():
    values = {"save_steps": 30, "eval_steps": 20, "load_best_model_at_end": False}
    assert build_settings(values).save_steps == 30


def test_changed_gives_a_validated_copy():
    settings = TrainingSettings()
    assert settings.changed(batch_size=2) == build_settings({"batch_size": 2})
    assert settings.batch_size == 4
    with pytest.raises(ConfigError, match="batch_size: 0"):
        settings.changed(batch_size=0)


def test_upper_case_config_field_can_be_derived():
    class MyCustomConfig(TrainingConfig):
        NUM_EPOCHS = 5
        BATCH_SIZE = 2
        LORA_R = 16
        LEARNING_RATE = 1e-4
        OUTPUT_DIR = "output/my-model"

    assert MyCustomConfig().settings() == TrainingSettings(
        num_epochs=5,
        batch_size=2,
        lora_r=16,
        learning_rate=1e-4,
        output_dir=Path("output/my-model"),
    )


def test_upper_case_config_field_can_be_set_on_an_instance():
    config = TrainingConfig()
    config.NUM_EPOCHS = 2
    config.resume_from_checkpoint = "output/chatglm-6b-triplet-qlora/checkpoint-500"
    config.TRAIN_FILE = "path/to/your/train.jsonl"
    assert config.settings() == TrainingSettings(
        num_epochs=2,
        resume_from_checkpoint="output/chatglm-6b-triplet-qlora/checkpoint-500",
        train_file=Path("path/to/your/train.jsonl"),
    )
    assert TrainingConfig().settings() == TrainingSettings()


def test_upper_case_config_reads_in_both_cases():
    config = TrainingConfig()
    config.batch_size = 2
    assert (config.BATCH_SIZE, config.batch_size, config.lora_r) == (2, 2, 8)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("BATCHSIZE", "BATCH_SIZE"),
        ("NUM_EPOCH", "NUM_EPOCHS"),
        ("LEARN_RATE", "LEARNING_RATE"),
        ("OUTPUT_DIRECTORY", "OUTPUT_DIR"),
        ("resume_from_chekpoint", "RESUME_FROM_CHECKPOINT"),
    ],
)
def test_upper_case_config_names_the_nearest_field(name, nearest):
    message = rf"TrainingConfig: there is no field '{name}'; did you mean {nearest}\?"
    with pytest.raises(ConfigError, match=message):
        setattr(TrainingConfig(), name, 1)


def test_upper_case_config_checks_names_when_a_class_is_made():
    with pytest.raises(ConfigError, match=r"Mine: .*'LORA_RANKS'"):
        type("Mine", (TrainingConfig,), {"LORA_RANKS": 4})


def test_upper_case_config_checks_names_when_read():
    with pytest.raises(ConfigError, match=r"'batch_sise'; did you mean BATCH_SIZE\?"):
        _ = TrainingConfig().batch_sise


def test_upper_case_config_gives_no_hint_without_a_near_field():
    with pytest.raises(ConfigError, match=r"there is no field 'XYZQ'$"):
        TrainingConfig().XYZQ = 1


def test_upper_case_config_may_have_methods():
    class WithMethod(TrainingConfig):
        def describe(self) -> str:
            return f"r={self.LORA_R}"

    assert WithMethod().describe() == "r=8"


def test_changed_fields_are_those_that_differ_from_the_defaults():
    config = SmallGPUConfig()
    config.SEED = 7
    config.LEARNING_RATE = 2e-4
    assert TrainingConfig().changed_fields() == set()
    assert config.changed_fields() == {*PRESET_VALUES["small"], "seed"}


def test_fields_hold_what_the_nearest_class_says():
    assert UpperCaseConfig().fields() == {}
    fields = SmallGPUConfig().fields()
    assert (fields["batch_size"], fields["num_epochs"]) == (1, 3)


@pytest.mark.parametrize(
    ("given", "trackers"),
    [
        (None, None),
        ("none", ()),
        ("wandb, mlflow", ("wandb", "mlflow")),
        (("swanlab",), ("swanlab",)),
    ],
)
def test_trackers_are_given_by_name(given, trackers):
    assert TrainingSettings(report_to=given).report_to == trackers


def test_unknown_tracker_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"report_to.*'comet'.*'tensorboard', 'swanlab'"):
        build_settings({"report_to": "comet"})
