"""Training from the command line: `tripletune train` and the guide's root scripts."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tripletune.cli.arguments import build_training_parser, given_settings
from tripletune.cli.quiet import quiet_libraries
from tripletune.config import (
    PRESET_VALUES,
    TrainingSettings,
    UpperCaseConfig,
    build_settings,
    find_changed_fields,
)
from tripletune.errors import DataError
from tripletune.training.ranks import is_main_process

__all__ = [
    "require_data",
    "set_up_logging",
    "train",
    "train_from_arguments",
    "train_with_settings",
]

logger = logging.getLogger("tripletune")

SAMPLE_SENTENCE = "星海科技有限公司由林若溪创立，总部位于杭州市。"


def set_up_logging() -> None:
    """The guide's log lines, `INFO - …`, on standard output; other libraries only from warnings."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    logger.handlers = [handler]
    # Under torchrun every process runs this; one of them speaks for all.
    logger.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    logger.propagate = False
    quiet_libraries()


def train(arguments: Sequence[str]) -> int:
    """`tripletune train`: every setting as a flag."""
    return train_from_arguments(arguments, prog="tripletune train")


def train_from_arguments(
    argv: Sequence[str] | None,
    *,
    configs: Mapping[str, type[UpperCaseConfig]] | type[UpperCaseConfig] | None = None,
    make_data: Callable[[Path], None] | None = None,
    prog: str | None = None,
) -> int:
    """Parses flags, chooses the preset and trains.

    Args:
        argv: The flags; None for those of the process.
        configs: The presets as classes of upper-case fields, by name, or the one class to use
            whatever the machine. None: the package's own presets.
        make_data: Called with the folder when the default data files are missing there. None:
            missing data is an error.
        prog: Name to show in the help.
    """
    from tripletune.training.machine import keep_micro_batch

    with_presets = not isinstance(configs, type)
    arguments = build_training_parser(prog, with_presets=with_presets).parse_args(argv)
    set_up_logging()
    explicit = given_settings(arguments)
    if isinstance(configs, type):
        values = configs().fields()
    else:
        preset = _choose(arguments.config)
        values = dict(PRESET_VALUES[preset]) if configs is None else configs[preset]().fields()
    settings = keep_micro_batch(build_settings({**values, **explicit}), explicit)
    chosen = set(explicit) | find_changed_fields(settings)
    return train_with_settings(settings, explicit=chosen, make_data=make_data)


def train_with_settings(
    settings: TrainingSettings,
    *,
    explicit: set[str],
    make_data: Callable[[Path], None] | None = None,
    run_class: Callable[[TrainingSettings], Any] | None = None,
) -> int:
    """Trains, scores before and after, and shows one extraction. Returns the exit code."""
    from tripletune.training.machine import adapt_to_machine, gpu_memory_gib
    from tripletune.training.run import TrainingRun

    settings, notes = adapt_to_machine(
        settings, explicit=explicit, has_gpu=gpu_memory_gib() is not None
    )
    for note in notes:
        logger.info(note)
    require_data(settings, make_data)
    run = (run_class or TrainingRun)(settings)
    run.setup_model_and_tokenizer()
    run.prepare_datasets()
    before = run.score()
    logger.info("微调前 F1: %.4f (验证集 %d 条)", before["f1"], run.num_scored)
    run.train()
    after = run.score()
    logger.info(
        "微调后 F1: %.4f  精确率: %.4f  召回率: %.4f (验证集 %d 条，微调前 F1 %.4f)",
        after["f1"],
        after["precision"],
        after["recall"],
        run.num_scored,
        before["f1"],
    )
    if is_main_process():
        _show_extraction(run)
    elif settings.fsdp:
        run.extract([])  # the weights that are here are needed there
    return 0


def _choose(preset: str) -> str:
    if preset != "auto":
        return preset
    from tripletune.training.machine import detect_preset

    preset, reason = detect_preset()
    logger.info("自动选择配置: %s (%s)", preset, reason)
    return preset


def require_data(settings: TrainingSettings, make_data: Callable[[Path], None] | None) -> None:
    """Makes sure that the data files are there, makes the default ones if that is possible.

    Raises:
        DataError: a file is missing; the message says how to get it.
    """
    missing = [p for p in (settings.train_file, settings.validation_file) if not p.exists()]
    if not missing:
        return
    defaults = {TrainingSettings.model_fields[n].default for n in ("train_file", "validation_file")}
    if make_data is not None and set(missing) <= defaults:
        logger.info("数据文件不存在，正在生成: %s", ", ".join(map(str, missing)))
        make_data(missing[0].parent)
        return
    remedy = "run: cd data && python generate_triplet_data.py"
    if set(missing) - defaults:
        remedy = "check the path (--train_file, --validation_file)"
    raise DataError(f"数据文件不存在 (no such file); {remedy}", path=missing[0])


def _show_extraction(run: Any) -> None:
    text = SAMPLE_SENTENCE
    if sys.stdin is not None and sys.stdin.isatty() and not run.settings.fsdp:
        # The end of input is an answer like an empty line: the training is done and saved.
        with contextlib.suppress(EOFError):
            text = input(f"输入一句话试试 (回车使用: {text})\n> ").strip() or text
    print(f"文本: {text}")
    for triplet in run.extract([text])[0].triplets:
        print(f"  ({triplet.subject}, {triplet.relation}, {triplet.object})")
    print('更多: python inference_triplet.py "一句话"；批量评估: python evaluate_triplet.py')
    print(f"输出目录: {run.settings.output_dir}")
