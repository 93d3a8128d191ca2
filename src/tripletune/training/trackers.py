"""Where a run's records go besides its own history: tensorboard, swanlab, wandb, mlflow.

Each record is passed on under the names it is logged with (`loss`, `eval_f1`, ...), at its step.
What a tracker writes to disk lies in the output folder. Only those that were named are used, and
tensorboard, which sends nothing anywhere, when it is installed and nothing was said.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers.trainer_callback import TrainerCallback

from tripletune.config import TrainingSettings
from tripletune.errors import MissingPackageError

__all__ = ["TrackerCallback", "choose_trackers"]

logger = logging.getLogger("tripletune")

PROJECT = "tripletune"
_MODULES = {
    # torch's writer imports the package itself only when it is used.
    "tensorboard": ("tensorboard", "torch.utils.tensorboard"),
    "swanlab": ("swanlab", "swanlab"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
}


class Tracker(Protocol):
    """An open run of a tracker."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Passes on one record."""

    def close(self) -> None:
        """Ends the run."""


def choose_trackers(report_to: Sequence[str] | None) -> tuple[str, ...]:
    """The trackers of a run, by name.

    Args:
        report_to: Those asked for. None: tensorboard where it is installed.

    Raises:
        MissingPackageError: one that was asked for is not installed.
    """
    if report_to is None:
        return ("tensorboard",) if _is_installed("tensorboard") else ()
    for name in report_to:
        if not _is_installed(name):
            raise MissingPackageError(
                f"report_to: {name!r} is not installed; run: pip install "
                f'"tripletune[{name}]" (or: pip install {name})'
            )
    return tuple(report_to)


def _is_installed(name: str) -> bool:
    package, _ = _MODULES[name]
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module put into sys.modules without a spec
        return True


class TrackerCallback(TrainerCallback):
    """Passes every logged record on to one tracker, from the first process alone.

    A tracker that fails (no network, no account) is said once and left; the training goes on.

    Args:
        name: One of `tensorboard`, `swanlab`, `wandb`, `mlflow`.
        settings: Recorded as the run's configuration; the output folder also names the run.
    """

    def __init__(self, name: str, settings: TrainingSettings) -> None:
        self._name = name
        self._settings = settings
        self._tracker: Tracker | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Opens the tracker's run."""
        if state.is_world_process_zero:
            self._try(lambda: self._open(state.global_step))

    def _open(self, step: int) -> None:
        library = importlib.import_module(_MODULES[self._name][1])
        self._tracker = _KINDS[self._name](library, self._settings, step)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Passes the numbers of a record on."""
        tracker = self._tracker
        numbers = {
            name: float(value)
            for name, value in (logs or {}).items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        if tracker is not None and numbers:
            self._try(lambda: tracker.log(numbers, state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the tracker's run."""
        if self._tracker is not None:
            self._try(self._tracker.close)
            self._tracker = None

    def _try(self, action: Callable[[], None]) -> None:
        # Whatever these libraries raise, it is no reason to lose a training.
        try:
            action()
        except Exception as error:
            self._tracker = None
            reason = str(error).strip().split("\n")[0]
            logger.warning("%s 不再记录: %s: %s", self._name, type(error).__name__, reason)


class _Tensorboard:
    def __init__(self, module: Any, settings: TrainingSettings, step: int) -> None:
        # What a run that broke off logged after its last checkpoint is logged again.
        self._writer = module.SummaryWriter(
            log_dir=str(settings.output_dir / "tensorboard"), purge_step=step + 1 if step else None
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, module: Any, settings: TrainingSettings, step: int) -> None:
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=settings.output_dir.name,
            config=settings.model_dump(mode="json"),
            dir=_make_folder(settings.output_dir),  # it makes a folder wandb there
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class _Swanlab:
    def __init__(self, module: Any, settings: TrainingSettings, step: int) -> None:
        self._module = module
        module.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", PROJECT),
            experiment_name=settings.output_dir.name,
            config=settings.model_dump(mode="json"),
            logdir=_make_folder(settings.output_dir / "swanlog"),
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        self._module.finish()


class _Mlflow:
    def __init__(self, module: Any, settings: TrainingSettings, step: int) -> None:
        self._module = module
        if "MLFLOW_TRACKING_URI" not in os.environ:
            folder = Path(_make_folder(settings.output_dir / "mlflow"))
            module.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        module.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        module.start_run(run_name=settings.output_dir.name)
        # A value may have 500 characters at most.
        values = settings.model_dump(mode="json").items()
        module.log_params({name: str(value)[:500] for name, value in values})

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._module.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        self._module.end_run()


_KINDS: dict[str, Callable[[Any, TrainingSettings, int], Tracker]] = {
    "tensorboard": _Tensorboard,
    "swanlab": _Swanlab,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}


def _make_folder(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return str(path.resolve())
