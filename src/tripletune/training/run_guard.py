"""What surrounds a training: the folder's lock, signals, faults in words, where to resume."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tripletune.config import TrainingSettings
from tripletune.errors import AdapterError, ConfigError
from tripletune.training.checkpoints import (
    Checkpoint,
    find_newest_checkpoint,
    tidy_checkpoints,
    verify_checkpoint,
)
from tripletune.training.faults import explain_fault
from tripletune.training.lock import RunLock
from tripletune.training.output_folder import check_output_dir
from tripletune.training.ranks import join_ranks
from tripletune.training.signals import StopRequest

__all__ = ["check_run", "choose_checkpoint", "guard_run", "match_ranks"]

logger = logging.getLogger("tripletune")


def check_run(settings: TrainingSettings) -> None:
    """What can be told before minutes of loading.

    Raises:
        AdapterError: the checkpoint to resume from is none.
        MissingPackageError: a tracker's package is not installed.
        OutputError: the output folder cannot be written.
    """
    from tripletune.training.trackers import choose_trackers

    check_output_dir(settings.output_dir)
    _check_checkpoint_name(settings.resume_from_checkpoint)
    choose_trackers(settings.report_to)


@contextmanager
def guard_run(output_dir: Path) -> Iterator[StopRequest]:
    """A training inside: holds the folder, takes signals, and says faults of the machine in words.

    Raises:
        OutputError: another run holds the folder, or it cannot be written.
        ResourceError: instead of what torch raises when memory, a GPU or a data worker fails.
        KeyboardInterrupt: on leaving, when a signal came that the training did not act on.
    """
    stop = StopRequest()
    with ExitStack() as stack:
        if os.environ.get("RANK", "0") == "0":
            output_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(RunLock(output_dir))
            tidy_checkpoints(output_dir)
        _wait_for_ranks()
        stack.enter_context(stop.listening())
        try:
            yield stop
        except Exception as error:
            explained = explain_fault(error, output_dir)
            if explained is None:
                raise
            raise explained from error
    if stop:
        raise KeyboardInterrupt


def choose_checkpoint(wanted: str | None, output_dir: Path) -> Checkpoint | None:
    """The checkpoint to resume from; None to start anew.

    Args:
        wanted: A checkpoint folder, `auto` for the newest sound one, or None.
        output_dir: Where `auto` looks.

    Raises:
        AdapterError: the named folder is no checkpoint or is damaged; or, with `auto`, there are
            checkpoints and not one of them is sound.
    """
    if wanted is None:
        return None
    _check_checkpoint_name(wanted)
    if wanted != "auto":
        return verify_checkpoint(Path(wanted))
    newest = find_newest_checkpoint(output_dir)
    if newest is None:
        logger.info("%s 中没有可用的检查点，从头开始训练", output_dir)
    return newest


def _check_checkpoint_name(wanted: str | None) -> None:
    if wanted in (None, "auto") or (Path(wanted) / "trainer_state.json").is_file():
        return
    raise AdapterError(
        f"resume_from_checkpoint: {wanted!r} is no checkpoint folder (it holds no "
        "trainer_state.json); give a folder such as output/…/checkpoint-50, or auto"
    )


def match_ranks(settings: TrainingSettings, checkpoint: Checkpoint) -> TrainingSettings:
    """Settings whose optimizer steps learn from as many examples as the checkpoint's did.

    On another number of processes the accumulation is changed, so that step N means the same.

    Raises:
        ConfigError: the batches of all processes do not divide that number.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    at_once = settings.batch_size * ranks
    wanted = checkpoint.examples_per_step
    if at_once * settings.gradient_accumulation_steps == wanted:
        return settings
    if wanted % at_once:
        raise ConfigError(
            f"batch_size: {settings.batch_size!r} on {ranks} processes cannot continue "
            f"{str(checkpoint.path)!r}, whose steps learn from {wanted} examples; give one that "
            f"divides {wanted} / {ranks}"
        )
    accumulation = wanted // at_once
    logger.warning(
        "检查点每一步学习 %d 个样本：%d 个进程 x batch_size %d，梯度累积由 %d 改为 %d",
        wanted,
        ranks,
        settings.batch_size,
        settings.gradient_accumulation_steps,
        accumulation,
    )
    return settings.changed(gradient_accumulation_steps=accumulation)


def _wait_for_ranks() -> None:
    """Until every process of a distributed run is here, so that all see the same checkpoints."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    from accelerate import PartialState

    join_ranks()
    PartialState().wait_for_everyone()
