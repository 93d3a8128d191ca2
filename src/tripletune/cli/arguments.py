"""Command-line flags from the fields of `TrainingSettings`: one flag a field, Chinese help."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import Any, NoReturn

from tripletune.config import PRESETS, TrainingSettings
from tripletune.extraction.votes import DEFAULT_SHARE

__all__ = ["OneLineParser", "add_vote_flags", "build_training_parser", "given_settings"]

_ALIASES = {"num_epochs": ["--epochs", "--num_train_epochs"]}
_HELP = {
    "model_name": "模型: 模型ID、本地目录或 embedded (内置小模型)",
    "revision": "模型ID的版本",
    "train_file": "训练数据",
    "validation_file": "验证数据",
    "output_dir": "输出目录",
    "num_epochs": "训练轮数",
    "max_steps": "最多训练多少步 (-1: 按轮数)",
    "batch_size": "每张GPU的批次大小",
    "eval_batch_size": "评估批次大小",
    "gradient_accumulation_steps": "梯度累积步数",
    "learning_rate": "学习率",
    "lora_r": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "lora_target_modules": "LoRA 作用的层, 逗号分隔, 或 all-linear",
    "max_source_length": "提示最长多少token",
    "max_target_length": "答案最长多少token",
    "long_texts": "提示过长时: drop (丢弃) 或 shorten (缩短文本)",
    "relations_per_prompt": "提示中每次列出多少种关系, 每个文本分几次问 (默认不列出)",
    "bidirectional_prompt": "提示双向阅读 (ChatGLM2/3 等单向模型; ChatGLM-6B 本来如此)",
    "cache_dir": "词元缓存目录 (默认: 输出目录下的 token_cache)",
    "resume_from_checkpoint": "从检查点继续: 目录, 或 auto (最近一个)",
    "seed": "随机种子",
    "report_to": "记录到 tensorboard, swanlab, wandb, mlflow (逗号分隔), 或 none",
    "early_stopping_patience": "连续多少次评估F1没有提高就停止 (默认不停)",
    "compute": "冻结权重的计算精度: auto (bf16 或 fp16) 或 fp8 (Ada, Hopper)",
    "offload_activations": "梯度检查点的激活值放到主机内存, 更省显存",
    "fsdp": "FSDP: 冻结的权重分给各个进程, 用于一张卡放不下的模型 (torchrun)",
    "join_micro_batches": "显存允许时合并微批次, 有效批次不变 (给出 batch_size 时默认 false)",
    "packing": "把多条样本拼成一行 (true/false; 默认: GPU上 true)",
}


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line that names the nearest flag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Prints the complaint and exits with 2."""
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            unknown = message.removeprefix(prefix).split()[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            nearest = difflib.get_close_matches(unknown.split("=")[0], flags, n=1, cutoff=0.5)
            hint = f"，是否想用 (did you mean) {nearest[0]}？" if nearest else ""
            message = f"没有参数 (unknown argument) {unknown}{hint}"
        print(f"错误 (error): {message} (全部参数 / all flags: --help)", file=sys.stderr)
        sys.exit(2)


def build_training_parser(prog: str | None = None, *, with_presets: bool = True) -> OneLineParser:
    """Every setting as a flag, and, with presets, `--config` to choose one."""
    parser = OneLineParser(prog=prog, description="TripleTune: QLoRA 训练")
    if with_presets:
        parser.add_argument(
            "--config", choices=PRESETS, default="auto", help="预设配置 (默认 auto)"
        )
    for name, field in TrainingSettings.model_fields.items():
        default = field.default
        help_text = f"{_HELP.get(name, name)} (默认 {default})".replace("%", "%%")
        # A switch that is off may be named alone.
        alone: dict[str, Any] = {"nargs": "?", "const": True} if default is False else {}
        parser.add_argument(
            f"--{name}",
            *_ALIASES.get(name, []),
            dest=name,
            default=argparse.SUPPRESS,
            help=help_text,
            metavar=name.upper(),
            type=_converter(name, default),
            **alone,
        )
    return parser


def add_vote_flags(parser: argparse.ArgumentParser) -> None:
    """`--votes` and `--vote_share`, of the scripts that extract."""
    parser.add_argument(
        "--votes", type=int, default=1, help="每段抽取几次，保留多数同意的三元组 (默认 1)"
    )
    parser.add_argument(
        "--vote_share",
        type=float,
        default=DEFAULT_SHARE,
        help=f"多大份额的抽取同意才保留 (默认 {DEFAULT_SHARE})",
    )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given on the command line, by field name."""
    return {k: v for k, v in vars(arguments).items() if k in TrainingSettings.model_fields}


def _converter(name: str, default: Any) -> Any:
    if name in ("early_stopping_patience", "relations_per_prompt"):
        return int
    if name == "packing" or isinstance(default, bool):
        return _read_bool
    if isinstance(default, tuple):
        return lambda text: (
            text if text == "all-linear" else tuple(part for part in text.split(",") if part)
        )
    if isinstance(default, int) and name != "num_epochs":
        return int
    if isinstance(default, (int, float)):
        return float
    return str


def _read_bool(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r}: true or false")
