"""Positions of points and lines for the charts of the report, in SVG units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tripletune.evaluation.calibration import Calibration

__all__ = ["Plot", "Point", "make_reliability_points", "make_threshold_lines"]


@dataclass(frozen=True, slots=True)
class Plot:
    """A square plot of values from 0 to 1, the origin at the lower left.

    Attributes:
        size: Width and height of the plotting area.
        left: Space left of it, for labels.
        top: Space above it.
    """

    size: float = 240.0
    left: float = 36.0
    top: float = 12.0

    def x(self, value: float) -> float:
        """The horizontal position of a value."""
        return round(self.left + value * self.size, 2)

    def y(self, value: float) -> float:
        """The vertical position of a value."""
        return round(self.top + (1 - value) * self.size, 2)

    def polyline(self, points: Iterable[tuple[float, float]]) -> str:
        """The `points` attribute of a line through some values.

        Example:
            >>> Plot(size=100, left=0, top=0).polyline([(0, 0), (0.5, 1)])
            '0,100 50.0,0'
        """
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in points)


@dataclass(frozen=True, slots=True)
class Point:
    """A dot of the reliability plot: position, radius and what it says."""

    x: float
    y: float
    radius: float
    label: str


def make_reliability_points(calibration: Calibration, plot: Plot) -> list[Point]:
    """One dot for each bin with triplets; its area grows with their number."""
    points = []
    for bin_ in calibration.bins:
        if bin_.mean_confidence is None or bin_.accuracy is None:
            continue
        share = bin_.num_triplets / calibration.num_triplets
        label = (
            f"{bin_.low:.1f}–{bin_.high:.1f}: 置信度 {bin_.mean_confidence:.3f}, "
            f"正确率 {bin_.accuracy:.3f}, n = {bin_.num_triplets}"
        )
        x, y = plot.x(bin_.mean_confidence), plot.y(bin_.accuracy)
        points.append(Point(x, y, round(3 + 9 * share**0.5, 2), label))
    return points


def make_threshold_lines(calibration: Calibration, plot: Plot) -> dict[str, str]:
    """Lines of precision, recall and F1 over the threshold; undefined scores are left out."""
    return {
        score: plot.polyline(
            (point.threshold, value)
            for point in calibration.thresholds
            if (value := getattr(point.counts, score)) is not None
        )
        for score in ("precision", "recall", "f1")
    }
