from __future__ import annotations

import errno
import json
import logging
import os
import random
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.small_runs import (
    NUM_STEPS,
    Killed,
    SmallRun,
    adapter_bytes,
    build_small_settings,
    leave_out_slow_parts,
    read_history,
    train,
)
from tripletune.errors import OutputError, ResourceError
from tripletune.training import checkpoints, resumable
from tripletune.training.checkpoints import list_checkpoints, verify_checkpoint
from tripletune.training.resumable import ResumableTrainer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    leave_out_slow_parts(monkeypatch)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_model_dir) -> Path:
    """The output folder of a run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tripletune.training.callbacks.plot_history", lambda *a: None)
        settings = build_small_settings(tmp_path_factory.mktemp("whole"), tiny_model_dir)
        train(settings)
    return settings.output_dir


@pytest.fixture
def settings(tmp_path, tiny_model_dir):
    return build_small_settings(tmp_path, tiny_model_dir, resume_from_checkpoint="auto")


def kill_at(*steps: int) -> Any:
    def action(trainer: Any, step: int) -> None:
        if step in steps:
            raise Killed

    return action


def assert_same_run(output_dir: Path, uninterrupted: Path) -> None:
    assert read_history(output_dir) == read_history(uninterrupted)
    assert adapter_bytes(output_dir) == adapter_bytes(uninterrupted)


@pytest.mark.parametrize("step", [2, 6, 7, 9, 14])
def test_run_killed_at_a_step_ends_in_the_same_adapter(settings, uninterrupted, step):
    with pytest.raises(Killed):
        train(settings, kill_at(step))
    steps: list[int] = []
    train(settings, lambda trainer, number: steps.append(number))
    assert steps == list(range((step - 1) // 4 * 4 + 1, NUM_STEPS + 1))
    assert_same_run(settings.output_dir, uninterrupted)


def test_run_takes_the_best_checkpoint_at_the_end(uninterrupted):
    best = uninterrupted / "checkpoint-8" / "adapter_model.safetensors"
    assert adapter_bytes(uninterrupted) == best.read_bytes()


def test_run_stops_early_and_stops_there_again_when_it_was_killed(settings, uninterrupted):
    # F1 at steps 4, 8, 12: 0.2, 0.7, 0.3; the run has 14 steps.
    settings = settings.changed(early_stopping_patience=1)
    with pytest.raises(Killed):
        train(settings, kill_at(9))
    steps: list[int] = []
    train(settings, lambda trainer, number: steps.append(number))
    assert steps == [9, 10, 11, 12]
    best = uninterrupted / "checkpoint-8" / "adapter_model.safetensors"
    assert adapter_bytes(settings.output_dir) == best.read_bytes()
    # What had stopped does not go on.
    train(settings, lambda trainer, number: steps.append(number))
    assert steps == [9, 10, 11, 12]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_saves_at_the_step_and_the_run_goes_on_from_there(settings, uninterrupted, name):
    def send(trainer: Any, step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), getattr(signal, name))

    with pytest.raises(KeyboardInterrupt):
        train(settings, send)
    assert verify_checkpoint(settings.output_dir / "checkpoint-6").step == 6
    steps: list[int] = []
    train(settings, lambda trainer, number: steps.append(number))
    assert steps[0] == 7
    assert_same_run(settings.output_dir, uninterrupted)


def test_signal_during_evaluation_leaves_it_and_does_it_on_resuming(
    settings, uninterrupted, monkeypatch
):
    score = SmallRun.score

    def interrupted(self: Any) -> dict[str, float]:
        if self.trainer.state.global_step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(5)
            raise RuntimeError("the signal was not acted on")
        return score(self)

    with monkeypatch.context() as patch:
        patch.setattr(SmallRun, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    state = json.loads((settings.output_dir / "checkpoint-8" / "run_state.json").read_text())
    assert state["pending_evaluation"] is True
    train(settings)
    assert_same_run(settings.output_dir, uninterrupted)


def test_signal_during_the_last_evaluation_leaves_a_run_that_can_be_finished(
    settings, uninterrupted, monkeypatch
):
    score = SmallRun.score

    def interrupted(self: Any) -> dict[str, float]:
        if self.trainer.state.global_step == NUM_STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self)

    with monkeypatch.context() as patch:
        patch.setattr(SmallRun, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    train(settings)
    assert_same_run(settings.output_dir, uninterrupted)


def test_finished_run_resumed_trains_no_further_step(settings, uninterrupted):
    train(settings.changed(max_steps=4))
    steps: list[int] = []
    train(settings.changed(max_steps=4), lambda trainer, number: steps.append(number))
    assert steps == []


def test_damaged_checkpoint_falls_back_to_the_one_before(settings, uninterrupted, caplog):
    with pytest.raises(Killed):
        train(settings, kill_at(10))
    damaged = settings.output_dir / "checkpoint-8" / "optimizer.pt"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    caplog.set_level(logging.INFO, logger="tripletune")
    train(settings)
    (said,) = [m for m in caplog.messages if "检查点已损坏" in m]
    assert str(damaged.parent) in said
    assert "optimizer.pt has" in said
    assert f"从检查点继续: {settings.output_dir / 'checkpoint-4'}" in caplog.messages
    assert_same_run(settings.output_dir, uninterrupted)


def test_checkpoint_holds_no_pickled_arguments(uninterrupted):
    assert not list(uninterrupted.rglob("training_args.bin"))


def test_resuming_loads_no_pickle_that_runs_code(settings, tmp_path):
    with pytest.raises(Killed):
        train(settings, kill_at(6))
    folder = settings.output_dir / "checkpoint-4"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save(Touch(str(tmp_path / "ran")), folder / name)
        os.remove(folder / "manifest.json")
        checkpoint = checkpoints.finish_checkpoint(
            move_to_staging(folder), step=4, run_number=1, examples_per_step=4
        )
        assert checkpoint.path == folder
        with pytest.raises(Exception, match=r"[Ww]eights.only"):
            train(settings)
        assert not (tmp_path / "ran").exists()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.path),))


def move_to_staging(folder: Path) -> Path:
    staging = folder.with_name(f".{folder.name}.saving")
    folder.rename(staging)
    return staging


def test_save_minutes_go_by_a_clock_that_cannot_jump(settings, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(resumable.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: -1e9)

    def tick(trainer: Any, step: int) -> None:
        now[0] += 61 if step in (2, 6) else 1

    at = {}
    original = ResumableTrainer._finish

    def finish(self: Any, staging: Path) -> None:
        original(self, staging)
        at[self.state.global_step] = now[0]

    monkeypatch.setattr(ResumableTrainer, "_finish", finish)
    train(settings.changed(save_minutes=1, max_steps=7), tick)
    assert sorted(at) == [2, 4, 6, 7]


def test_checkpoints_are_kept_by_number_and_the_best_is_among_them(uninterrupted):
    assert [p.name for p in list_checkpoints(uninterrupted)] == ["checkpoint-8", "checkpoint-14"]


def test_new_run_over_old_checkpoints_keeps_its_own(tmp_path, tiny_model_dir):
    settings = build_small_settings(
        tmp_path, tiny_model_dir, load_best_model_at_end=False, eval_steps=100, keep_checkpoints=1
    )
    train(settings)
    train(settings.changed(max_steps=4))
    assert [p.name for p in list_checkpoints(settings.output_dir)] == ["checkpoint-4"]


# ---- faults ----


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_failed_save_leaves_the_run_going(settings, uninterrupted, monkeypatch, caplog, number):
    original = checkpoints.finish_checkpoint

    def full(staging: Path, *, step: int, **kwargs: Any) -> Any:
        if step == 4:
            raise OSError(number, os.strerror(number))
        return original(staging, step=step, **kwargs)

    monkeypatch.setattr(resumable, "finish_checkpoint", full)
    train(settings)
    (said,) = [m for m in caplog.messages if "检查点没有保存" in m]
    assert "checkpoint-4" in said
    assert os.strerror(number) in said
    assert not list(settings.output_dir.glob(".checkpoint-*"))
    assert_same_run(settings.output_dir, uninterrupted)


def test_full_disk_that_stays_full_ends_the_run_with_what_to_do(settings, monkeypatch):
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(resumable, "begin_checkpoint", full)
    with pytest.raises(OutputError, match=r"No space left on device.*make room.*auto"):
        train(settings)
    assert list_checkpoints(settings.output_dir) == []


@contextmanager
def limited_files(num_bytes: int) -> Iterator[None]:
    """The system writes no file beyond this size inside, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_disk_that_is_full_for_the_adapter_loses_nothing(settings, uninterrupted, monkeypatch):
    save = SmallRun._save

    def save_on_full_disk(self: Any) -> Any:
        with limited_files(500):
            return save(self)

    with monkeypatch.context() as patch:
        patch.setattr(SmallRun, "_save", save_on_full_disk)
        with pytest.raises(OutputError, match=r"output_dir: .*File too large.*make room.*auto"):
            train(settings)
    train(settings)
    assert_same_run(settings.output_dir, uninterrupted)


def test_history_that_cannot_be_written_leaves_the_run_going(settings, monkeypatch, caplog):
    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tripletune.training.callbacks.write_history", full)
    trainer = train(settings.changed(max_steps=4))
    assert trainer.state.global_step == 4
    assert any("训练曲线没有写入" in m and "No space left" in m for m in caplog.messages)


def test_lost_gpu_ends_the_run_with_what_to_do_and_it_can_be_resumed(
    settings, uninterrupted, monkeypatch
):
    original = ResumableTrainer.compute_loss

    def lost(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ResumableTrainer, "compute_loss", lost)
        with pytest.raises(ResourceError, match=r"GPU: it failed .*nvidia-smi.*auto"):
            train(settings)
    train(settings)
    assert_same_run(settings.output_dir, uninterrupted)


def test_evaluation_out_of_memory_halves_the_batch(settings, uninterrupted, monkeypatch, caplog):
    original = torch.nn.Module.__call__

    def limited(self: Any, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs.get("input_ids")
        if ids is not None and not torch.is_grad_enabled() and len(ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", limited)
    trainer = train(settings.changed(max_steps=4))
    assert any("评估时显存不足" in m for m in caplog.messages)
    actual = [r["eval_loss"] for r in trainer.state.log_history if "eval_loss" in r]
    expected = [r["eval_loss"] for r in read_history(uninterrupted) if "eval_loss" in r]
    assert actual == pytest.approx(expected[:1], rel=1e-3)


def test_evaluation_leaves_the_random_states_as_they_were(settings):
    states: list[Any] = []

    def look(trainer: Any, step: int) -> None:
        with trainer.undisturbed():
            states.append((random.getstate(), np.random.get_state()[1].tolist()))
            random.random()
            np.random.rand()
            before = torch.rand(1)
        states.append((random.getstate(), np.random.get_state()[1].tolist()))
        with trainer.undisturbed():
            assert torch.equal(before, torch.rand(1))

    train(settings.changed(max_steps=1), look)
    assert states[0] == states[1]
