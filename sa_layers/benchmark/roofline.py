"""A roofline: how fast each implementation computes, against how much it computes per byte that it must move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Point(NamedTuple):
    """One measurement."""

    series: str
    """The implementation, drawn in a colour of its own."""
    task: str
    """What it did, drawn with a mark of its own."""
    intensity: float
    """FLOP per byte that must be moved at least."""
    performance: float
    """FLOP/s."""


def plot_roofline(path: Path, title: str, points: Sequence[Point], bandwidth: float, peak: float) -> None:
    """Draws the points under the roof: ``min(peak, bandwidth * intensity)``.

    Args:
        path: The picture to write; its ending is its format.
        title: What was measured, and on what.
        points: The measurements.
        bandwidth: Bytes per second of the fastest copy.
        peak: FLOP/s of the fastest matrix product.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("a plot needs matplotlib: pip install 'sa-layers[benchmark]'") from None
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    ridge = peak / bandwidth
    left = min([point.intensity for point in points] + [ridge]) / 2
    right = max([point.intensity for point in points] + [ridge]) * 2
    axes.plot([left, ridge, right], [left * bandwidth / 1e9, peak / 1e9, peak / 1e9], color="black", label="roof")
    axes.axvline(ridge, color="black", linewidth=0.5, linestyle=":")
    marks = dict(zip(dict.fromkeys(point.task for point in points), "os^v", strict=False))
    colours = {series: f"C{index}" for index, series in enumerate(dict.fromkeys(point.series for point in points))}
    for point in points:
        axes.plot(point.intensity, point.performance / 1e9, color=colours[point.series], marker=marks[point.task])
    for label, colour, mark in [(series, colour, "o") for series, colour in colours.items()] + [
        (task, "grey", mark) for task, mark in marks.items()
    ]:
        axes.plot([], [], color=colour, marker=mark, linestyle="none", label=label)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that must be moved", ylabel="GFLOP/s", title=title)
    axes.grid(which="major", linewidth=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
