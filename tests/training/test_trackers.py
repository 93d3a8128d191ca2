from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.training.small_runs import F1_AT_STEP, build_small_settings, train
from tripletune.config import TrainingSettings
from tripletune.errors import MissingPackageError
from tripletune.training.trackers import TrackerCallback, choose_trackers

RECORD = {"loss": 2.0, "eval_f1": 0.5, "epoch": 1, "note": "text"}
NUMBERS = {"loss": 2.0, "eval_f1": 0.5, "epoch": 1.0}


class Fake(ModuleType):
    """A tracker's module that writes down every call."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Fake:
            self.calls.append((name, *args, kwargs))
            return self

        return call


@pytest.fixture
def install(monkeypatch):
    def put(name: str) -> Fake:
        fake = Fake(name)
        monkeypatch.setitem(sys.modules, name, fake)
        if name == "tensorboard":
            monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
        return fake

    for variable in ("WANDB_PROJECT", "SWANLAB_PROJ_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return put


@pytest.fixture
def absent(monkeypatch):
    find = importlib.util.find_spec
    trackers = ("tensorboard", "swanlab", "wandb", "mlflow")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in trackers else find(name)
    )


def run_callback(name: str, settings: TrainingSettings, *, step: int = 0, first: bool = True):
    state = SimpleNamespace(is_world_process_zero=first, global_step=step)
    callback = TrackerCallback(name, settings)
    callback.on_train_begin(None, state, None)
    state.global_step = step + 5
    callback.on_log(None, state, None, logs=dict(RECORD))
    callback.on_train_end(None, state, None)


def test_nothing_is_recorded_where_tensorboard_is_absent(absent):
    assert choose_trackers(None) == ()


def test_installed_tensorboard_is_the_default(install):
    install("tensorboard")
    assert choose_trackers(None) == ("tensorboard",)
    assert choose_trackers(()) == ()


@pytest.mark.parametrize("name", ["tensorboard", "swanlab", "wandb", "mlflow"])
def test_tracker_that_is_not_installed_is_named_with_its_command(absent, name):
    with pytest.raises(MissingPackageError) as caught:
        choose_trackers((name,))
    assert str(caught.value) == (
        f"report_to: {name!r} is not installed; run: pip install "
        f'"tripletune[{name}]" (or: pip install {name})'
    )


def test_tensorboard_gets_numbers_by_name_inside_the_output_folder(install, tmp_path):
    fake = install("tensorboard")
    run_callback("tensorboard", TrainingSettings(output_dir=tmp_path), step=50)
    scalars = [("add_scalar", name, value, 55, {}) for name, value in NUMBERS.items()]
    folder = str(tmp_path / "tensorboard")
    assert fake.calls == [
        ("SummaryWriter", {"log_dir": folder, "purge_step": 51}),
        *scalars,
        ("flush", {}),
        ("close", {}),
    ]


@pytest.mark.parametrize(("name", "folder"), [("wandb", "."), ("swanlab", "swanlog")])
def test_hosted_trackers_get_numbers_and_settings(install, tmp_path, name, folder):
    fake = install(name)
    settings = TrainingSettings(output_dir=tmp_path / "my-run", seed=7)
    run_callback(name, settings)
    (init, options), *rest = fake.calls
    assert init == "init"
    assert options["project"] == "tripletune"
    assert options.get("name", options.get("experiment_name")) == "my-run"
    assert options["config"]["seed"] == 7
    place = str((tmp_path / "my-run" / folder).resolve())
    assert options.get("dir", options.get("logdir")) == place
    assert rest == [("log", NUMBERS, {"step": 5}), ("finish", {})]


def test_mlflow_keeps_its_store_in_the_output_folder(install, tmp_path):
    fake = install("mlflow")
    run_callback("mlflow", TrainingSettings(output_dir=tmp_path))
    names = [call[0] for call in fake.calls]
    assert names == [
        "set_tracking_uri",
        "set_experiment",
        "start_run",
        "log_params",
        "log_metrics",
        "end_run",
    ]
    assert fake.calls[0][1] == f"sqlite:///{tmp_path.resolve() / 'mlflow' / 'mlflow.db'}"
    assert fake.calls[4] == ("log_metrics", NUMBERS, {"step": 5})


def test_mlflow_goes_where_the_environment_says(install, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking")
    fake = install("mlflow")
    run_callback("mlflow", TrainingSettings(output_dir=tmp_path))
    assert "set_tracking_uri" not in [call[0] for call in fake.calls]


def test_other_processes_record_nothing(install, tmp_path):
    fake = install("wandb")
    run_callback("wandb", TrainingSettings(output_dir=tmp_path), first=False)
    assert fake.calls == []


def test_tracker_that_fails_is_said_once_and_left(install, tmp_path, caplog):
    fake = install("wandb")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route\nmore")

    fake.__dict__["log"] = fail
    run_callback("wandb", TrainingSettings(output_dir=tmp_path))
    assert caplog.messages == ["wandb 不再记录: ConnectionError: no route"]
    assert [call[0] for call in fake.calls] == ["init"]


def test_run_reports_every_evaluation_under_its_logged_name(install, tmp_path, tiny_model_dir):
    fake = install("tensorboard")
    train(build_small_settings(tmp_path, tiny_model_dir))
    scores = [call[2:4] for call in fake.calls if call[:2] == ("add_scalar", "eval_f1")]
    assert scores == [(F1_AT_STEP[step], step) for step in (4, 8, 12, 14)]


def test_run_with_a_missing_tracker_loads_no_model(absent, tmp_path, tiny_model_dir):
    settings = build_small_settings(tmp_path, tiny_model_dir, report_to="wandb")
    with pytest.raises(MissingPackageError, match="'wandb' is not installed"):
        train(settings.changed(model_name="no-such-model"))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_tensorboard_itself_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_callback("tensorboard", TrainingSettings(output_dir=tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(NUMBERS)
    (point,) = events.Scalars("eval_f1")
    assert (point.step, point.value) == (5, 0.5)
