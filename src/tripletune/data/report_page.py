"""A check report as one HTML page that needs nothing else: plots are inline SVG."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tripletune.data.check import CheckReport
from tripletune.data.inspection import SEVERITIES, TITLES
from tripletune.data.statistics import FileStatistics, compute_quantiles
from tripletune.data.writers import open_output

__all__ = ["Bar", "build_bars", "render_page", "write_page"]

_MAX_BARS = 24
_MAX_RELATIONS = 30


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a plot.

    Attributes:
        label: What is counted.
        count: How often.
        share: Its length as a share of the longest bar, from 0 to 1.
    """

    label: str
    count: int
    share: float


def write_page(report: CheckReport, path: str | Path) -> None:
    """Write the page.

    Raises:
        OutputError: the file cannot be written.
    """
    with open_output(Path(path)) as file:
        file.write(render_page(report))


def render_page(report: CheckReport) -> str:
    """The HTML of a report; all text from the data is escaped."""
    environment = Environment(
        loader=PackageLoader("tripletune.data", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [(SEVERITIES[kind], kind, number) for kind, number in sorted(report.counts.items())]
    order = ("error", "warning", "info")
    names = _shorten_paths([file.path for file in report.files])
    return environment.get_template("check.html.j2").render(
        report=report,
        titles=TITLES,
        severities={"error": "错误", "warning": "警告", "info": "提示"},
        names=names,
        rows=sorted(rows, key=lambda row: (order.index(row[0]), row[1])),
        files=[
            _describe_file(name, file)
            for name, file in zip(report.formats, report.files, strict=True)
        ],
    )


def _shorten_paths(paths: Sequence[str]) -> dict[str, str]:
    """The paths without the folder that all of them are in."""
    full = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in full]) if full else ""
    return {path: os.path.relpath(long, folder) for path, long in zip(paths, full, strict=True)}


def build_bars(counts: Mapping[int, int], *, max_bars: int = _MAX_BARS) -> list[Bar]:
    """A histogram of whole numbers, in classes of equal width, at most `max_bars` of them.

    Example:
        >>> build_bars({0: 3, 1: 6})
        [Bar(label='0', count=3, share=0.5), Bar(label='1', count=6, share=1.0)]
    """
    if not counts:
        return []
    low, high = min(counts), max(counts)
    width = max(1, -(-(high - low + 1) // max_bars))
    classes = [0] * ((high - low) // width + 1)
    for value, number in counts.items():
        classes[(value - low) // width] += number
    most = max(classes)
    return [
        Bar(_name_class(low + place * width, width), number, number / most)
        for place, number in enumerate(classes)
    ]


def _name_class(start: int, width: int) -> str:
    return str(start) if width == 1 else f"{start}-{start + width - 1}"


def _name_bars(counts: Sequence[tuple[str, int]]) -> list[Bar]:
    most = max((number for _, number in counts), default=1)
    return [Bar(name, number, number / most) for name, number in counts]


def _describe_file(name: str, file: FileStatistics) -> dict[str, Any]:
    directions = [
        (relation, file.subject_first[relation], file.object_first[relation])
        for relation, _ in file.relations.most_common(_MAX_RELATIONS)
    ]
    return {
        "format": name,
        "statistics": file,
        "share_empty": file.num_empty / max(1, file.num_examples),
        "quantiles": [
            (title, quantiles)
            for title, quantiles in (
                ("文本 (字)", compute_quantiles(file.text_lengths)),
                ("提示 (token)", compute_quantiles(file.prompt_lengths)),
                ("答案 (token)", compute_quantiles(file.target_lengths)),
            )
            if quantiles is not None
        ],
        "plots": [
            (title, bars)
            for title, bars in (
                ("文本长度 (字)", build_bars(file.text_lengths)),
                ("提示长度 (token)", build_bars(file.prompt_lengths)),
                ("答案长度 (token)", build_bars(file.target_lengths)),
                ("每条样本的三元组数", build_bars(file.triplets_per_example)),
                ("最常见的关系", _name_bars(file.relations.most_common(_MAX_RELATIONS))),
            )
            if bars
        ],
        "directions": [row for row in directions if row[1] + row[2]],
    }
