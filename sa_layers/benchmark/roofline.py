"""A roofline: how fast each implementation computes, against how much it computes per byte that it must move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Point(NamedTuple):
    """One measurement."""

    series: str
    """The implementation, drawn in a colour of its own."""
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
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    ridge = peak / bandwidth
    left = min([point.intensity for point in points] + [ridge]) / 2
    right = max([point.intensity for point in points] + [ridge]) * 2
    axes.plot([left, ridge, right], [left * bandwidth / 1e9, peak / 1e9, peak / 1e9], color="black", label="roof")
    axes.axvline(ridge, color="black", linewidth=0.5, linestyle=":")
    for series in dict.fromkeys(point.series for point in points):
        own = [point for point in points if point.series == series]
        axes.plot(
            [point.intensity for point in own],
            [point.performance / 1e9 for point in own],
            marker="o",
            linestyle="none",
            label=series,
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte that must be moved", ylabel="GFLOP/s", title=title)
    axes.grid(which="major", linewidth=0.3)
    figure.legend(loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
