"""示例训练脚本: four worked examples, from a menu or with `--example N`.

python example_train.py
python example_train.py --example 3
"""

from __future__ import annotations

from collections.abc import Callable

from config.train_config_simple import FastTrainingConfig, TrainingConfig
from tripletune.cli.arguments import OneLineParser
from tripletune.cli.main import guarded


def train(config: TrainingConfig) -> None:
    """Trains in the three steps of `ChatGLMTrainer`."""
    from train_with_config import ChatGLMTrainer

    trainer = ChatGLMTrainer(config)
    trainer.setup_model_and_tokenizer()
    trainer.prepare_datasets()
    trainer.train()


def basic_training() -> None:
    """示例1: the defaults."""
    train(TrainingConfig())


class MyCustomConfig(TrainingConfig):
    """示例2的配置: what differs from the defaults."""

    NUM_EPOCHS = 5
    BATCH_SIZE = 2
    GRADIENT_ACCUMULATION_STEPS = 8
    LORA_R = 16
    OUTPUT_DIR = "output/my-model"


def custom_training() -> None:
    """示例2: a class of one's own."""
    train(MyCustomConfig())


def fast_training() -> None:
    """示例3: is everything in place? A few steps are enough."""
    config = FastTrainingConfig()
    config.MAX_STEPS = 20
    config.OUTPUT_DIR = "output/fast-test"
    train(config)


def programmatic_training() -> None:
    """示例4: fields set from code."""
    config = TrainingConfig()
    config.NUM_EPOCHS = 2
    config.BATCH_SIZE = 1
    config.GRADIENT_ACCUMULATION_STEPS = 8
    config.LORA_R = 4
    config.OUTPUT_DIR = "output/programmatic"
    train(config)


EXAMPLES: dict[str, tuple[str, Callable[[], None]]] = {
    "1": ("基础训练", basic_training),
    "2": ("自定义配置", custom_training),
    "3": ("快速测试", fast_training),
    "4": ("编程式配置", programmatic_training),
}


def ask() -> str | None:
    """The chosen number, or None at the end of input."""
    print("选择一个训练示例:")
    for number, (title, _) in EXAMPLES.items():
        print(f"  {number}. {title}")
    while True:
        try:
            answer = input("请输入 1-4 (q 退出): ").strip()
        except EOFError:
            print()
            return None
        if answer in EXAMPLES:
            return answer
        if answer.lower() in ("q", "quit", "exit"):
            return None
        print(f"没有示例 {answer!r}")


def main() -> int:
    """Runs the example that was asked for."""
    parser = OneLineParser(description="TripleTune: 训练示例")
    parser.add_argument("--example", choices=EXAMPLES, help="直接运行第 N 个示例")
    number = parser.parse_args().example or ask()
    if number is None:
        print("没有选择示例")
        return 0
    title, run = EXAMPLES[number]
    print(f"运行示例 {number}: {title}")
    make_default_data()
    run()
    return 0


def make_default_data() -> None:
    """Generates the default data if it is missing."""
    from pathlib import Path

    if not (Path(TrainingConfig.TRAIN_FILE).is_file()):
        from data.generate_triplet_data import generate

        generate(Path(TrainingConfig.TRAIN_FILE).parent)


if __name__ == "__main__":
    guarded(main)
