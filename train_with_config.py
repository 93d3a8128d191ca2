"""配置化训练脚本: presets, flags, and `ChatGLMTrainer` for use from Python.

python train_with_config.py --config auto
python train_with_config.py --config medium --epochs 5 --batch_size 2 --lora_r 16
torchrun --nproc_per_node=2 train_with_config.py --config large
"""

from __future__ import annotations

from config.train_config_simple import (
    FastTrainingConfig,
    LargeGPUConfig,
    MediumGPUConfig,
    SmallGPUConfig,
    TrainingConfig,
)
from tripletune.cli.main import guarded
from tripletune.training.run import TrainingRun

CONFIGS = {
    "small": SmallGPUConfig,
    "medium": MediumGPUConfig,
    "large": LargeGPUConfig,
    "fast": FastTrainingConfig,
}


class ChatGLMTrainer(TrainingRun):
    """A training run from a `TrainingConfig`: set up, prepare, train.

    Without a CUDA GPU a config that names the default ChatGLM-6B trains the embedded base model,
    and says so.
    """

    def __init__(self, config: TrainingConfig) -> None:
        from tripletune.cli.train import set_up_logging
        from tripletune.training.machine import settings_for_machine

        set_up_logging()
        super().__init__(settings_for_machine(config))


def main() -> int:
    """Trains as the flags say."""
    from tripletune.cli.train import train_from_arguments

    return train_from_arguments(None, configs=CONFIGS)


if __name__ == "__main__":
    guarded(main)
