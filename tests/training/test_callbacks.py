from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tripletune.training.callbacks import (
    EarlyStoppingCallback,
    HistoryCallback,
    ProgressCallback,
    count_without_gain,
)

LOG = {"loss": 2.123456, "learning_rate": 0.000199999999, "epoch": 0.104}


def build_state(**changes) -> SimpleNamespace:
    fields = {
        "max_steps": 10,
        "global_step": 0,
        "num_input_tokens_seen": 500,
        "is_world_process_zero": True,
        "log_history": [],
    }
    return SimpleNamespace(**{**fields, **changes})


@pytest.fixture
def progress():
    callback = ProgressCallback()
    yield callback
    callback.on_train_end(None, build_state(), None)


def test_progress_prints_a_record_as_the_guide_shows_it(progress, capsys):
    progress.on_train_begin(None, build_state(), None)
    progress.on_log(None, build_state(), None, logs=LOG)
    line = "{'loss': 2.1235, 'learning_rate': 0.0002, 'epoch': 0.1}"
    assert line in capsys.readouterr().out.splitlines()


def test_progress_leaves_the_record_as_it_is(progress):
    logs = dict(LOG)
    progress.on_train_begin(None, build_state(), None)
    progress.on_log(None, build_state(), None, logs=logs)
    assert logs == LOG


def test_progress_does_not_print_the_summary(progress, capsys):
    progress.on_train_begin(None, build_state(), None)
    progress.on_log(None, build_state(), None, logs={"train_runtime": 1.0, "train_loss": 2.0})
    assert capsys.readouterr().out == ""


def test_progress_shows_steps_and_tokens_a_second(progress, capsys):
    progress.on_train_begin(None, build_state(), None)
    progress.on_step_end(None, build_state(global_step=4), None)
    progress.on_train_end(None, build_state(global_step=4), None)
    shown = capsys.readouterr().err
    assert "4/10" in shown
    assert "tokens/s" in shown


def test_progress_goes_on_where_a_resumed_run_stands(progress, capsys):
    progress.on_train_begin(None, build_state(global_step=6), None)
    assert "6/10" in capsys.readouterr().err


def test_progress_of_a_resumed_run_counts_no_tokens_of_the_start_before(
    progress, capsys, monkeypatch
):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("tripletune.training.callbacks.time.perf_counter", lambda: next(clock))
    progress.on_train_begin(None, build_state(global_step=6, num_input_tokens_seen=7000), None)
    last = build_state(global_step=7, num_input_tokens_seen=8230)
    progress.on_step_end(None, last, None)
    progress.on_train_end(None, last, None)
    assert "123 tokens/s" in capsys.readouterr().err


def test_progress_is_silent_on_other_ranks(progress, capsys):
    state = build_state(is_world_process_zero=False)
    progress.on_train_begin(None, state, None)
    progress.on_step_end(None, state, None)
    progress.on_log(None, state, None, logs=LOG)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("moment", ["on_save", "on_train_end"])
def test_history_is_written_at_checkpoints_and_at_the_end(tmp_path, moment):
    records = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    getattr(HistoryCallback(tmp_path), moment)(None, build_state(log_history=records), None)
    written = json.loads((tmp_path / "training_history.json").read_text(encoding="utf-8"))
    assert written == records
    assert (tmp_path / "training_curves.png").is_file()


def test_history_is_written_by_one_rank_only(tmp_path):
    state = build_state(is_world_process_zero=False, log_history=[{"step": 1, "loss": 2.0}])
    HistoryCallback(tmp_path).on_train_end(None, state, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scores", "count"),
    [
        ([], 0),
        ([0.0], 0),
        ([0.1, 0.2], 0),
        ([0.2, 0.1], 1),
        ([0.2, 0.2, 0.2], 2),  # as good is not better
        ([0.1, 0.5, 0.4, 0.3], 2),
        ([0.5, 0.1, 0.6, 0.2], 1),
    ],
)
def test_evaluations_without_a_better_f1_are_counted(scores, count):
    history = [{"loss": 1.0}, *({"eval_f1": score} for score in scores)]
    assert count_without_gain(history) == count


def build_control(history, patience, moment="on_evaluate"):
    control = SimpleNamespace(should_training_stop=False)
    state = build_state(log_history=history)
    getattr(EarlyStoppingCallback(patience), moment)(None, state, control)
    return control.should_training_stop


@pytest.mark.parametrize("moment", ["on_evaluate", "on_train_begin"])
def test_early_stopping_waits_for_its_patience(moment):
    history = [{"eval_f1": 0.5}, {"eval_f1": 0.4}]
    assert build_control(history, 1, moment) is True
    assert build_control(history, 2, moment) is False
