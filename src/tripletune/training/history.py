"""The record of a run's losses and scores: `training_history.json` and `training_curves.png`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["HISTORY_FILE", "PLOT_FILE", "plot_history", "write_history"]

HISTORY_FILE = "training_history.json"
PLOT_FILE = "training_curves.png"


def write_history(output_dir: Path, history: Sequence[dict[str, Any]]) -> Path:
    """Writes every logged record as JSON in place of an earlier file; returns its path."""
    path = output_dir / HISTORY_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(
        json.dumps(list(history), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    os.replace(temporary, path)
    return path


def plot_history(output_dir: Path, history: Sequence[dict[str, Any]]) -> Path | None:
    """Draws loss, F1 and learning rate over the steps; returns the picture's path.

    Returns None when nothing was logged. Works without a screen.
    """
    losses = _series(history, "loss")
    eval_losses = _series(history, "eval_loss")
    scores = _series(history, "eval_f1")
    rates = _series(history, "learning_rate")
    if not losses and not eval_losses:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [
        (
            "Loss (cross entropy per answer token)",
            [("training", losses), ("validation", eval_losses)],
        ),
        ("F1 on validation sentences (strict)", [("validation", scores)]),
        ("Learning rate", [("learning rate", rates)]),
    ]
    panels = [(title, lines) for title, lines in panels if any(points for _, points in lines)]
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for number, (title, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        for label, points in lines:
            if points:
                marker = "o" if len(points) < 15 else None
                axes.plot(*zip(*points, strict=True), label=label, marker=marker, linewidth=1.6)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.3)
        if title.startswith("F1"):
            axes.set_ylim(0, 1.02)
        if sum(bool(points) for _, points in lines) > 1:
            axes.legend(frameon=False)
    path = output_dir / PLOT_FILE
    FigureCanvasAgg(figure).print_figure(path, dpi=120)
    return path


def _series(history: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (int(record["step"]), float(record[name]))
        for record in history
        if isinstance(record.get(name), (int, float))
    ]
