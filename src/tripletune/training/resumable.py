"""A Trainer that loses nothing: whole checkpoints, and runs that go on from them exactly.

What it changes of `transformers.Trainer`, beside what `guarded_steps` does:

- checkpoints are written by `checkpoints`, hold no pickled arguments, and carry what the Trainer
  forgets: the loss since the last log record, seconds trained, an evaluation that was interrupted;
- order and division of the data come from `batch_order`; evaluation draws no random numbers from
  training's generators, so neither evaluating nor resuming changes what follows.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tripletune.errors import AdapterError, OutputError
from tripletune.training.batch_order import CollateOrBlank, RankBatches
from tripletune.training.checkpoints import (
    begin_checkpoint,
    discard_checkpoint,
    finish_checkpoint,
    next_run_number,
    prune_checkpoints,
    verify_checkpoint,
)
from tripletune.training.guarded_steps import GuardedTrainer
from tripletune.training.run_state import RUN_STATE_FILE, read_run_state
from tripletune.training.signals import EvaluationInterrupted, StopRequest

__all__ = ["MAX_FAILED_SAVES", "ResumableTrainer"]

logger = logging.getLogger("tripletune")

MAX_FAILED_SAVES = 3
"""Checkpoints in a row that cannot be written, after which the run ends."""


class ResumableTrainer(GuardedTrainer):
    """See the module.

    Args:
        stop: Says when a signal asked the run to stop. None: never.
        save_minutes: A checkpoint is written at least this often. None: by steps alone.
        balance_tokens: Divide each batch among ranks by tokens rather than in order.
        **kwargs: As `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        stop: StopRequest | None = None,
        save_minutes: float | None = None,
        balance_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._stop = StopRequest() if stop is None else stop
        self._save_minutes = save_minutes
        self._balance_tokens = balance_tokens
        self._stopping = False
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._run_number: int | None = None
        self._failed_saves = 0
        self._restored: dict[str, Any] = {}
        self._resumed_from: str | None = None
        self._pending_evaluation = False
        self.train_seconds = 0.0
        """Seconds spent in training steps, evaluation and saving not counted."""

    # ---- data ----

    def get_train_dataloader(self) -> Any:
        """This rank's batches, in an order that depends on seed and epoch alone."""
        from accelerate.data_loader import prepare_data_loader

        dataset = self.train_dataset
        order: Any = self._get_train_sampler()
        self._batches = RankBatches(
            order,
            [len(dataset[index]) for index in range(len(dataset))],
            self._train_batch_size,
            num_ranks=self.args.world_size,
            rank=self.args.process_index,
            balanced=self._balance_tokens,
        )
        loader = DataLoader(
            dataset,
            batch_sampler=self._batches,
            collate_fn=CollateOrBlank(self.data_collator, dataset[0]),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # The batches are this rank's already: to accelerate it is the only process.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )

    # ---- evaluation ----

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """An evaluation inside: random states are put back after it; a signal ends it at once."""
        if self._stopping:
            raise EvaluationInterrupted
        python, numpy = random.getstate(), np.random.get_state()
        alone = self.is_in_train and self.args.world_size == 1
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            try:
                with self._stop.interrupting() if alone else nullcontext():
                    yield
            finally:
                random.setstate(python)
                np.random.set_state(numpy)

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks; itself when there is one."""
        if self.args.world_size > 1:
            values = values.to(self.args.device)
            torch.distributed.all_reduce(values)
        return values.cpu()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # The best model is always kept, whether or not a checkpoint was due at this step.
        is_best: bool = super()._determine_best_metric(metrics=metrics, trial=trial)
        if is_best and self.args.load_best_model_at_end:
            self.control.should_save = True
        return is_best

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        self._ask_ranks()
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except EvaluationInterrupted:
            self._pending_evaluation, self._stopping = True, True
            self._saved_step = -1
            self._save_checkpoint(model, trial)
        if self._stopping:
            if self._saved_step != self.state.global_step:
                self._save_checkpoint(model, trial)
            logger.warning(
                "收到 %s：已保存 %s；加上 --resume_from_checkpoint auto 继续训练",
                self._stop.signal_name or "stop",
                self._checkpoint_path(self.state.global_step),
            )
            raise KeyboardInterrupt

    def _ask_ranks(self) -> None:
        """Whether any rank was asked to stop, and whether a checkpoint is due by the clock."""
        minutes = (time.monotonic() - self._saved_at) / 60
        due = self._save_minutes is not None and minutes >= self._save_minutes
        flags = torch.tensor([bool(self._stop), due and self.args.process_index == 0])
        self._stopping, due = (self.sum_over_ranks(flags.to(torch.int32)) > 0).tolist()
        if due and self._saved_step != self.state.global_step:
            self.control.should_save = True

    # ---- saving ----

    def _checkpoint_path(self, step: int) -> Path:
        return Path(self.args.output_dir) / f"checkpoint-{step}"

    def _last_checkpoint_name(self) -> str:
        return str(self._checkpoint_path(self._saved_step)) if self._saved_step > 0 else "none"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        best_before = self.state.best_model_checkpoint
        error = self._try_to_save()
        if error is None:
            self._failed_saves = 0
            self._saved_step = self.state.global_step
            self._saved_at = time.monotonic()
            return
        self.state.best_model_checkpoint = best_before
        self._failed_saves += 1
        last = self.state.global_step >= self.state.max_steps
        if self._stopping or last or self._failed_saves >= MAX_FAILED_SAVES:
            raise error
        logger.warning("检查点没有保存，训练继续，下次再试: %s", error)

    def _try_to_save(self) -> OutputError | None:
        """Writes the checkpoint; what went wrong on any rank, or None. Leaves nothing half done."""
        step, output_dir = self.state.global_step, Path(self.args.output_dir)
        staging = output_dir / f".checkpoint-{step}.saving"
        writes = self.args.should_save
        phases: list[Callable[[], Any]] = [
            lambda: begin_checkpoint(output_dir, step) if writes else None,
            lambda: self._write_state(staging),
            lambda: self._finish(staging) if writes else None,
        ]
        for phase in phases:
            error: OutputError | None = None
            try:
                phase()
            except OutputError as failure:
                error = failure
            except (OSError, RuntimeError) as failure:
                error = _explain_write(staging, failure)
            if int(self.sum_over_ranks(torch.tensor(int(error is not None)))):
                if writes:
                    discard_checkpoint(staging)
                return error or OutputError(f"checkpoint: another rank could not write {staging}")
        return None

    def _write_state(self, staging: Path) -> None:
        self.store_flos()
        best = self.state.best_global_step
        if best and (best == self.state.global_step or self._checkpoint_path(best).is_dir()):
            self.state.best_model_checkpoint = str(self._checkpoint_path(best))
        try:
            self.save_model(str(staging), _internal_call=True)
        except Exception as error:
            # safetensors raises its own class for a full disk, derived from Exception alone.
            if type(error).__module__.startswith("safetensors"):
                raise _explain_write(staging, error) from error
            raise
        self._save_optimizer_and_scheduler(str(staging))
        self._save_scaler(str(staging))
        self._save_rng_state(str(staging))
        loss = float(self.sum_over_ranks(self._tr_loss.detach().clone())) / self.args.world_size
        if self.args.should_save:
            self.state.save_to_json(str(staging / "trainer_state.json"))
            content = json.dumps(self._run_state(loss), indent=1)
            (staging / RUN_STATE_FILE).write_text(content + "\n", encoding="utf-8")

    def _finish(self, staging: Path) -> None:
        output_dir = Path(self.args.output_dir)
        if self._run_number is None:
            self._run_number = next_run_number(output_dir)
        finish_checkpoint(
            staging,
            step=self.state.global_step,
            run_number=self._run_number,
            examples_per_step=self.get_total_train_batch_size(self.args),
        )
        best = self.state.best_model_checkpoint
        if self.args.save_total_limit:
            prune_checkpoints(
                output_dir,
                keep=self.args.save_total_limit,
                protected=[Path(best)] if best is not None else [],
            )

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # As the Trainer, without its pickled arguments.
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        os.makedirs(folder, exist_ok=True)
        self.accelerator.unwrap_model(self.model).save_pretrained(folder, state_dict=state_dict)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _run_state(self, loss_since_log: float) -> dict[str, Any]:
        return {
            "pending_evaluation": self._pending_evaluation,
            "train_seconds": self.train_seconds,
            "loss_since_log": loss_since_log,
            "last_logged_step": self._globalstep_last_logged,
            "skipped_steps": self.skipped_steps,
            "bad_steps_in_a_row": self._bad_steps_in_a_row,
            "num_pieces": self.num_pieces,
            "batch_size": self._train_batch_size,
        }

    # ---- resuming ----

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> Any:
        result = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        if resume_from_checkpoint is not None:
            self._restore(Path(resume_from_checkpoint))
        return result

    def _restore(self, folder: Path) -> None:
        self._resumed_from = str(folder)
        path = folder / RUN_STATE_FILE
        if path.is_file():
            self._restored = read_run_state(path)
            self._pending_evaluation = self._restored["pending_evaluation"]
            self.train_seconds = self._restored["train_seconds"]
            self.skipped_steps = self._restored["skipped_steps"]
            self._bad_steps_in_a_row = self._restored["bad_steps_in_a_row"]
            self.num_pieces = self._restored["num_pieces"]
        self._saved_step = self.state.global_step
        # Found by its step: the recorded path may be of another machine, or of an attacker.
        best = self.state.best_global_step
        self.state.best_model_checkpoint = None
        if not best or not self.args.load_best_model_at_end:
            return
        for place in (self._checkpoint_path(best), folder.parent / f"checkpoint-{best}"):
            try:
                self.state.best_model_checkpoint = str(verify_checkpoint(place).path)
                return
            except AdapterError as error:
                problem = error
        logger.warning("最佳检查点不能用，训练结束时不再载入它: %s", problem)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        folder = Path(checkpoint or "")
        one = "rng_state.pth"
        name = f"rng_state_{self.args.process_index}.pth" if self.args.world_size > 1 else one
        if checkpoint is not None and not (folder / name).is_file():
            seed = f"{self.args.seed}-{self.state.global_step}-{self.args.process_index}"
            number = random.Random(seed).getrandbits(31)
            random.seed(number)
            np.random.seed(number)
            torch.manual_seed(number)
            logger.info("进程数已改变，随机状态由种子和步数重新确定")
            return
        super()._load_rng_state(checkpoint)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self._catch_up(kwargs["model"], kwargs["trial"], kwargs["epoch"], kwargs["start_time"])
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        # On resuming inside an epoch, transformers before 5.20 does not reach the order itself.
        self._batches.set_epoch(kwargs["epoch"])
        trainer: Any = super()
        trainer._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        self._catch_up(self.model_wrapped, trial, self.state.epoch, start_time)
        trainer: Any = super()
        return trainer._finalize_training(trial, num_train_samples, start_time)

    def _catch_up(self, model: Any, trial: Any, epoch: float, start_time: float) -> None:
        """Puts the loss since the last log record back and does the evaluation left undone."""
        if self._restored:
            self._tr_loss += self._restored["loss_since_log"]
            self._globalstep_last_logged = self._restored["last_logged_step"]
            self._restored = {}
        if self._pending_evaluation:
            self._pending_evaluation = False
            # The checkpoint is written again, and must hold the random state it was read with.
            self._load_rng_state(self._resumed_from)
            self.control.should_evaluate = True
            self.control.should_save = True
            self.control.should_log = False
            self._maybe_log_save_evaluate(
                self._tr_loss, None, model, trial, epoch, None, start_time
            )


def _explain_write(path: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
    return OutputError(
        f"checkpoint: {str(path)!r} cannot be written ({reason}); make room or mend the folder's "
        "permissions, then continue with --resume_from_checkpoint auto"
    )
