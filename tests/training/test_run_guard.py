from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

from tripletune.config import TrainingSettings
from tripletune.errors import AdapterError, ConfigError, OutputError, ResourceError
from tripletune.training.checkpoints import Checkpoint, begin_checkpoint, finish_checkpoint
from tripletune.training.lock import RunLock
from tripletune.training.run_guard import choose_checkpoint, guard_run, match_ranks


def write_checkpoint(folder: Path, step: int) -> Path:
    staging = begin_checkpoint(folder, step)
    (staging / "trainer_state.json").write_text("{}", encoding="utf-8")
    return finish_checkpoint(staging, step=step, run_number=1, examples_per_step=16).path


def test_checkpoint_is_not_looked_for_when_none_is_asked_for(tmp_path):
    write_checkpoint(tmp_path, 50)
    assert choose_checkpoint(None, tmp_path) is None


def test_checkpoint_is_the_named_one(tmp_path):
    path = write_checkpoint(tmp_path / "other", 50)
    write_checkpoint(tmp_path, 60)
    chosen = choose_checkpoint(str(path), tmp_path)
    assert chosen == Checkpoint(path, 50, 1, 16)


def test_checkpoint_auto_is_the_last_by_number(tmp_path):
    for step in (50, 150, 100):
        write_checkpoint(tmp_path, step)
    chosen = choose_checkpoint("auto", tmp_path)
    assert chosen is not None
    assert chosen.step == 150


def test_checkpoint_auto_says_that_there_is_none(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="tripletune")
    assert choose_checkpoint("auto", tmp_path) is None
    assert caplog.messages == [f"{tmp_path} 中没有可用的检查点，从头开始训练"]


def test_named_folder_that_is_no_checkpoint_is_refused(tmp_path):
    message = r"resume_from_checkpoint: '.*' is no checkpoint folder .*trainer_state\.json"
    with pytest.raises(AdapterError, match=message):
        choose_checkpoint(str(tmp_path), tmp_path)


def test_named_checkpoint_that_is_damaged_is_refused(tmp_path):
    path = write_checkpoint(tmp_path, 50)
    (path / "trainer_state.json").write_text("[]", encoding="utf-8")
    with pytest.raises(AdapterError, match=r"trainer_state\.json was changed"):
        choose_checkpoint(str(path), tmp_path)


def test_guard_holds_the_folder(tmp_path):
    folder, mine = tmp_path / "new", f"pid {os.getpid()}"
    with guard_run(folder), pytest.raises(OutputError, match=mine), RunLock(folder):
        pass
    with RunLock(folder):
        pass


def test_guard_removes_what_a_killed_run_was_writing(tmp_path):
    begin_checkpoint(tmp_path, 5)
    with guard_run(tmp_path):
        assert not list(tmp_path.glob(".checkpoint-*"))


def test_guard_leaves_after_a_signal_that_nothing_acted_on(tmp_path):
    reached = []

    def train() -> None:
        with guard_run(tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert reached == ["the end"]


def test_guard_says_faults_in_words(tmp_path):
    with pytest.raises(ResourceError, match="GPU: it failed") as caught, guard_run(tmp_path):
        raise RuntimeError("CUDA error: unspecified launch failure")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_guard_leaves_other_errors_alone(tmp_path):
    with pytest.raises(RuntimeError, match=r"^shapes$"), guard_run(tmp_path):
        raise RuntimeError("shapes")


def test_ranks_keep_the_examples_of_a_step(monkeypatch, caplog):
    checkpoint = Checkpoint(Path("out/checkpoint-5"), 5, 1, 16)
    settings = TrainingSettings(batch_size=4, gradient_accumulation_steps=4)
    assert match_ranks(settings, checkpoint) is settings
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert match_ranks(settings, checkpoint).gradient_accumulation_steps == 2
    assert len(caplog.messages) == 1


def test_ranks_that_do_not_divide_a_step_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    checkpoint = Checkpoint(Path("out/checkpoint-5"), 5, 1, 16)
    with pytest.raises(ConfigError, match=r"batch_size: 4 on 3 processes .* divides 16 / 3"):
        match_ranks(TrainingSettings(batch_size=4), checkpoint)
