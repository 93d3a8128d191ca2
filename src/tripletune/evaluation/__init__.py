"""Scoring of triplets: matching, intervals, comparison, error classes, reports.

Nothing here needs a model: this package imports only `tripletune.schema` and `tripletune.errors`
from the rest, and never torch.
"""

from __future__ import annotations

from tripletune.evaluation.aliases import read_aliases
from tripletune.evaluation.bootstrap import Difference, Interval
from tripletune.evaluation.calibration import Calibration
from tripletune.evaluation.comparison import Comparison, compare, compare_files
from tripletune.evaluation.counts import Counts
from tripletune.evaluation.error_classes import ErrorSummary, TripletError
from tripletune.evaluation.report import render_html, render_markdown, write_report
from tripletune.evaluation.scoring import (
    Evaluation,
    Settings,
    TextResult,
    evaluate,
    evaluate_files,
)

__all__ = [
    "Calibration",
    "Comparison",
    "Counts",
    "Difference",
    "ErrorSummary",
    "Evaluation",
    "Interval",
    "Settings",
    "TextResult",
    "TripletError",
    "compare",
    "compare_files",
    "evaluate",
    "evaluate_files",
    "read_aliases",
    "render_html",
    "render_markdown",
    "write_report",
]
