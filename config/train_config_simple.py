"""训练配置 (training configuration): edit a class, derive your own, or set fields on an instance.

Every field is listed in the README; a misspelt one is an error that names the nearest.
"""

from __future__ import annotations

from tripletune.config import UpperCaseConfig


class TrainingConfig(UpperCaseConfig):
    """基础配置: defaults of every run."""

    MODEL_NAME = "THUDM/chatglm-6b"
    OUTPUT_DIR = "output/chatglm-6b-triplet-qlora"
    TRAIN_FILE = "data/train_triplet.jsonl"
    VALIDATION_FILE = "data/val_triplet.jsonl"

    NUM_EPOCHS = 3
    BATCH_SIZE = 4
    EVAL_BATCH_SIZE = 4
    GRADIENT_ACCUMULATION_STEPS = 4
    LEARNING_RATE = 2e-4
    WARMUP_STEPS = 10
    MAX_STEPS = -1

    LORA_R = 8
    LORA_ALPHA = 32
    LORA_DROPOUT = 0.1
    LORA_TARGET_MODULES = ("query_key_value",)

    MAX_SOURCE_LENGTH = 512
    MAX_TARGET_LENGTH = 256

    LOGGING_STEPS = 5
    SAVE_STEPS = 50
    EVAL_STEPS = 50
    LOAD_BEST_MODEL_AT_END = True
    GRADIENT_CHECKPOINTING = True
    SEED = 42


class SmallGPUConfig(TrainingConfig):
    """小显存GPU (12GB以下)."""

    BATCH_SIZE = 1
    EVAL_BATCH_SIZE = 1
    GRADIENT_ACCUMULATION_STEPS = 16
    LORA_R = 4
    LORA_ALPHA = 16
    MAX_SOURCE_LENGTH = 256
    MAX_TARGET_LENGTH = 128


class MediumGPUConfig(TrainingConfig):
    """中等显存GPU (12-24GB)."""

    BATCH_SIZE = 4
    GRADIENT_ACCUMULATION_STEPS = 4
    LORA_R = 8


class LargeGPUConfig(TrainingConfig):
    """大显存GPU (24GB+)."""

    BATCH_SIZE = 8
    EVAL_BATCH_SIZE = 8
    GRADIENT_ACCUMULATION_STEPS = 2
    LORA_R = 16
    LORA_ALPHA = 64


class FastTrainingConfig(TrainingConfig):
    """快速测试: one epoch."""

    NUM_EPOCHS = 1
    BATCH_SIZE = 2
    EVAL_BATCH_SIZE = 2
    WARMUP_STEPS = 5
