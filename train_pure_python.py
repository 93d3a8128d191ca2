"""基础训练脚本: `python train_pure_python.py`, no flags needed.

Fine-tunes ChatGLM-6B with QLoRA on `data/*_triplet.jsonl` (generated when missing). Without a CUDA
GPU it trains the small model that comes with TripleTune instead, in a few minutes. Every flag of
`train_with_config.py` but `--config` works here, too.
"""

from __future__ import annotations

from config.train_config_simple import TrainingConfig
from tripletune.cli.main import guarded

# 主要配置 (the main settings; the rest is in config/train_config_simple.py)
model_name = TrainingConfig.MODEL_NAME  # "THUDM/chatglm-6b"
batch_size = 4
epochs = 3
lora_r = 8
learning_rate = 2e-4


def main() -> int:
    """Trains with the settings above."""
    from data.generate_triplet_data import generate
    from tripletune.cli.train import train_from_arguments

    class Settings(TrainingConfig):
        MODEL_NAME = model_name
        BATCH_SIZE = batch_size
        NUM_EPOCHS = epochs
        LORA_R = lora_r
        LEARNING_RATE = learning_rate

    return train_from_arguments(None, configs=Settings, make_data=generate)


if __name__ == "__main__":
    guarded(main)
