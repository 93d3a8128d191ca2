"""生成训练数据: `python generate_triplet_data.py`, no flags needed, from any working directory.

Writes `train_triplet.jsonl` (903 lines) and `val_triplet.jsonl` (101 lines) beside this script:
sentences made from facts and templates with a seed, whose validation entities never occur in
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tripletune.cli.main import guarded

DATA_DIR = Path(__file__).resolve().parent


def generate(
    output_dir: str | Path = DATA_DIR,
    *,
    seed: int = 42,
    num_train: int = 903,
    num_validation: int = 101,
) -> None:
    """Writes both files and says what they hold."""
    from tripletune.data.generator.dataset import write_default_data

    print(f"正在生成三元组数据 (seed={seed}) ...")
    train, validation = write_default_data(
        output_dir, seed=seed, num_train=num_train, num_validation=num_validation
    )
    for name, file in (("训练集", train), ("验证集", validation)):
        share = file.num_empty / file.num_examples
        print(
            f"{name}: {file.num_examples} 条, {file.num_triplets} 个三元组, "
            f"{file.num_relations} 种关系, 无三元组的句子 {share:.1%}, "
            f"平均 {file.mean_characters:.0f} 字 -> {file.path}"
        )
    print(f"示例: {train.sample.text}")
    for triplet in train.sample.triplets:
        print(f"  ({triplet.subject}, {triplet.relation}, {triplet.object})")


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the flags and generates."""
    from tripletune.cli.arguments import OneLineParser

    parser = OneLineParser(description="生成三元组训练数据和验证数据")
    parser.add_argument("--seed", type=int, default=42, help="随机种子 (默认 42)")
    parser.add_argument("--num_train", type=int, default=903, help="训练集条数 (默认 903)")
    parser.add_argument("--num_validation", type=int, default=101, help="验证集条数 (默认 101)")
    parser.add_argument(
        "--output_dir", type=Path, default=DATA_DIR, help="输出目录 (默认: 本脚本所在目录)"
    )
    arguments = parser.parse_args(argv)
    generate(
        arguments.output_dir,
        seed=arguments.seed,
        num_train=arguments.num_train,
        num_validation=arguments.num_validation,
    )
    return 0


if __name__ == "__main__":
    guarded(main)
