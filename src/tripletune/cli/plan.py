"""`tripletune plan`: memory and time of a training, without doing it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from tripletune.cli.arguments import build_training_parser, given_settings
from tripletune.cli.train import require_data, set_up_logging
from tripletune.config import PRESET_VALUES, TrainingSettings, build_settings, choose_preset
from tripletune.errors import ResourceError

__all__ = ["plan"]

logger = logging.getLogger("tripletune")

_CONTEXT_BYTES = 512 << 20
"""What the driver takes of a card for a process, before anything is put there."""
_DOES_NOT_FIT = 1


def plan(arguments: Sequence[str]) -> int:
    """`tripletune plan`: the flags of `tripletune train`, and the card to plan for.

    Returns 0 when the run fits, 1 when it does not.
    """
    parser = build_training_parser("tripletune plan")
    parser.description = "TripleTune: 显存与时间计划，不训练"
    parser.add_argument(
        "--gpu_memory", type=_read_gib, help="为这么大显存的GPU做计划 (GiB; 默认: 本机的GPU)"
    )
    given = parser.parse_args(arguments)
    set_up_logging()
    from tripletune.training.machine import gpu_memory_gib

    memory = given.gpu_memory if given.gpu_memory is not None else gpu_memory_gib()
    if memory is None:
        raise ResourceError(
            "gpu_memory: there is no CUDA GPU here; say for what card to plan, as in --gpu_memory 8"
        )
    settings = _build_settings(given, memory)
    return _plan(settings, given.gpu_memory)


def _build_settings(given: argparse.Namespace, memory: float) -> TrainingSettings:
    from tripletune.training.machine import adapt_to_machine, keep_micro_batch

    explicit = given_settings(given)
    preset = given.config
    if preset == "auto":
        preset, reason = choose_preset(memory)
        logger.info("自动选择配置: %s (%s)", preset, reason)
    settings = build_settings({**PRESET_VALUES[preset], **explicit})
    settings, notes = adapt_to_machine(settings, explicit=set(explicit), has_gpu=True)
    for note in notes:
        logger.info(note)
    return keep_micro_batch(settings, explicit)


def _plan(settings: TrainingSettings, gpu_memory: float | None) -> int:
    from tripletune.models.loading import default_device, load_tokenizer
    from tripletune.training.encoding import encode_data
    from tripletune.training.fitting import GpuFit, describe_run
    from tripletune.training.plan_table import render_plan
    from tripletune.training.run import EVAL_SENTENCES
    from tripletune.training.run_data import load_run_data
    from tripletune.training.speed import find_typical_device

    require_data(settings, None)
    tokenizer = load_tokenizer(settings.model_name, revision=settings.revision)
    data = load_run_data(settings)
    with TemporaryDirectory() as folder:
        # Nothing is left behind where the training would write.
        cached = settings.changed(cache_dir=folder)
        train_set, validation_set = (
            encode_data(examples, tokenizer, cached, path=path, schema=data.schema)
            for examples, path in (
                (data.training, settings.train_file),
                (data.validation, settings.validation_file),
            )
        )
        described = describe_run(
            settings,
            tokenizer,
            training=train_set,
            validation=validation_set,
            scored_texts=[example.text for example in data.validation[:EVAL_SENTENCES]],
            schema=data.schema,
        )
    try:
        if gpu_memory is None:
            fit = GpuFit.on_device(described, default_device())
        else:
            available = int(gpu_memory * 2**30) - _CONTEXT_BYTES
            fit = GpuFit(described, find_typical_device(gpu_memory), available=available)
    except ResourceError as error:
        print(f"放不进显存 (does not fit): {error}")
        return _DOES_NOT_FIT
    print(render_plan(fit.plan))
    return 0


def _read_gib(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 1 <= size <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of GiB, from 1 to 4096")
    return size
