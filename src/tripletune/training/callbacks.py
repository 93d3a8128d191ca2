"""What a run shows while it trains (the guide's log records, a bar), keeps, and stops for."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers.trainer_callback import TrainerCallback

from tripletune.training.history import plot_history, write_history

__all__ = ["EarlyStoppingCallback", "HistoryCallback", "ProgressCallback", "count_without_gain"]

logger = logging.getLogger("tripletune")

_SHOWN_DIGITS = {"learning_rate": 8, "epoch": 2, "eval_runtime": 2, "tokens_per_second": 0}


class ProgressCallback(TrainerCallback):
    """A bar over the optimizer steps; each log record is printed above it as a dictionary."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._started = 0.0
        self._tokens_before = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Opens the bar where the run stands."""
        if not state.is_world_process_zero:
            return
        self._started = time.perf_counter()
        self._tokens_before = state.num_input_tokens_seen
        self._bar = tqdm(
            total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves the bar."""
        if self._bar is None:
            return
        elapsed = time.perf_counter() - self._started
        tokens = state.num_input_tokens_seen - self._tokens_before
        self._bar.set_postfix_str(f"{tokens / elapsed:,.0f} tokens/s", refresh=False)
        self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prints the record, `{'loss': …, 'learning_rate': …, 'epoch': …}`."""
        if self._bar is None or not logs or "train_runtime" in logs:
            return
        shown = {
            name: round(value, _SHOWN_DIGITS.get(name, 4)) if isinstance(value, float) else value
            for name, value in logs.items()
        }
        tqdm.write(str(shown))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class HistoryCallback(TrainerCallback):
    """Keeps the history file and the curves of the output folder up to date."""

    def __init__(self, output_dir: Path) -> None:
        self._output_dir = output_dir

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes what is known at a checkpoint."""
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the whole history."""
        self._write(state)

    def _write(self, state: Any) -> None:
        if not state.is_world_process_zero:
            return
        try:
            write_history(self._output_dir, state.log_history)
            plot_history(self._output_dir, state.log_history)
        except OSError as error:
            # A full disk must not end a run whose checkpoints hold the same history.
            logger.warning("训练曲线没有写入 %s: %s", self._output_dir, error)


class EarlyStoppingCallback(TrainerCallback):
    """Ends the training once several evaluations in a row brought no better F1.

    It counts in the run's history, which every checkpoint holds, so that a run that was interrupted
    stops where it would have stopped.

    Args:
        patience: That many evaluations.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Does not go on with a run that had stopped."""
        self._stop_when_due(state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called once the evaluation has been logged."""
        self._stop_when_due(state, control)

    def _stop_when_due(self, state: Any, control: Any) -> None:
        count = count_without_gain(state.log_history)
        if count >= self._patience:
            control.should_training_stop = True
            logger.info("连续 %d 次评估 F1 没有提高，在第 %d 步停止训练", count, state.global_step)


def count_without_gain(history: Sequence[Mapping[str, Any]]) -> int:
    """How many evaluations there were after the first one with the best `eval_f1`."""
    scores = [record["eval_f1"] for record in history if "eval_f1" in record]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0
