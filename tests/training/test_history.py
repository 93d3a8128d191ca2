from __future__ import annotations

import json

import matplotlib
import pytest

from tripletune.training.history import HISTORY_FILE, PLOT_FILE, plot_history, write_history

HISTORY = [
    {"step": 5, "loss": 2.5, "learning_rate": 2e-4, "epoch": 0.1},
    {"step": 10, "loss": 1.5, "learning_rate": 1e-4, "epoch": 0.2},
    {"step": 10, "eval_loss": 1.75, "eval_f1": 0.5, "eval_runtime": 3.0},
    {"step": 10, "train_runtime": 9.0},
]


@pytest.fixture
def axes(monkeypatch) -> list:
    """The axes that are drawn, in order."""
    drawn: list = []
    figure_class = matplotlib.figure.Figure
    plain = figure_class.add_subplot

    def add(self, *args, **kwargs):
        drawn.append(plain(self, *args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(figure_class, "add_subplot", add)
    return drawn


def read_lines(axis) -> list[list[tuple[float, float]]]:
    return [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.get_lines()]


def test_write_history_gives_every_record(tmp_path):
    path = write_history(tmp_path, HISTORY)
    assert path == tmp_path / HISTORY_FILE
    assert json.loads(path.read_text(encoding="utf-8")) == HISTORY


def test_write_history_replaces_an_earlier_one_and_leaves_nothing_else(tmp_path):
    write_history(tmp_path, HISTORY)
    write_history(tmp_path, HISTORY[:1])
    assert json.loads((tmp_path / HISTORY_FILE).read_text(encoding="utf-8")) == HISTORY[:1]
    assert [path.name for path in tmp_path.iterdir()] == [HISTORY_FILE]


def test_plot_history_writes_a_picture(tmp_path):
    path = plot_history(tmp_path, HISTORY)
    assert path == tmp_path / PLOT_FILE
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_history_draws_loss_f1_and_rate_over_the_steps(tmp_path, axes):
    plot_history(tmp_path, HISTORY)
    assert [read_lines(axis) for axis in axes] == [
        [[(5, 2.5), (10, 1.5)], [(10, 1.75)]],
        [[(10, 0.5)]],
        [[(5, 2e-4), (10, 1e-4)]],
    ]


def test_plot_history_leaves_out_what_was_not_measured(tmp_path, axes):
    plot_history(tmp_path, [{"step": 5, "loss": 2.5}])
    assert [read_lines(axis) for axis in axes] == [[[(5, 2.5)]]]


@pytest.mark.parametrize("history", [[], [{"step": 3, "train_runtime": 9.0}]])
def test_plot_history_of_nothing_is_nothing(tmp_path, history):
    assert plot_history(tmp_path, history) is None
    assert list(tmp_path.iterdir()) == []
