"""Plots of benchmark results: bar charts of times and rooflines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..extras import importing
from ..output_file import check_output, make_parent, output_file
from .errors import BenchmarkError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Bar(NamedTuple):
    """One bar of a bar chart."""

    panel: str
    name: str
    seconds: float
    forward_seconds: float | None = None
    """The part of the time that a forward pass takes, if the rest is a backward pass."""


class Point(NamedTuple):
    """One point of a roofline."""

    series: str
    """The implementation. Each has a colour of its own."""
    task: str
    """The task, such as the forward pass. Each has a marker of its own."""
    intensity: float
    """Arithmetic intensity: FLOP per byte of minimum memory traffic."""
    performance: float
    """FLOP/s."""


def plot_bars(path: Path, title: str, bars: Sequence[Bar]) -> None:
    """Plot times as horizontal bars, one panel for each ``Bar.panel``.

    Args:
        path: Image file to write. The suffix determines the format; without one it is PNG.
        title: Title of the figure.
        bars: Measurements, sorted by panel.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        OutputError: If the file cannot be written.
    """
    panels = [(name, list(group)) for name, group in groupby(bars, lambda bar: bar.panel)]
    heights = [len(group) + 2 for _, group in panels]
    figure = _make_figure(9, 0.3 * sum(heights) + 0.5)
    figure.suptitle(title)
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for (name, group), axes in zip(panels, grid[:, 0], strict=True):
        colours = ["C0" if "ResNet" in bar.name else "C1" for bar in group]
        names, whole = [bar.name for bar in group], [1000 * bar.seconds for bar in group]
        drawn = axes.barh(names, whole, color=colours)
        axes.bar_label(drawn, fmt="%.3g", padding=3)
        label = "ms"
        if any(bar.forward_seconds is not None for bar in group):
            backward = [1000 * (bar.seconds - (bar.forward_seconds or bar.seconds)) for bar in group]
            forward = [time - rest for time, rest in zip(whole, backward, strict=True)]
            axes.barh(names, backward, left=forward, color="white", alpha=0.4)
            label = "ms: forward pass (dark) and backward pass (light)"
        axes.margins(x=0.12)  # room for the bar labels
        axes.invert_yaxis()  # first bar at the top
        axes.set(title=name, xlabel=label)
    _save(figure, path)


def plot_roofline(path: Path, title: str, points: Sequence[Point], bandwidth: float, peak: float) -> None:
    """Plot points under the roofline ``min(peak, bandwidth * intensity)``.

    Args:
        path: Image file to write. The suffix determines the format; without one it is PNG.
        title: Title of the figure.
        points: Measurements.
        bandwidth: Bytes per second of the fastest copy.
        peak: FLOP/s of a large matrix product.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        OutputError: If the file cannot be written.
    """
    figure = _make_figure(9, 7)
    axes = figure.subplots()
    ridge = peak / bandwidth
    left = min([point.intensity for point in points] + [ridge]) / 2
    right = max([point.intensity for point in points] + [ridge]) * 2
    axes.plot([left, ridge, right], [left * bandwidth / 1e9, peak / 1e9, peak / 1e9], color="black", label="roof")
    axes.axvline(ridge, color="black", linewidth=0.5, linestyle=":")
    markers = dict(zip(dict.fromkeys(point.task for point in points), "os^v", strict=False))
    colours = {series: f"C{index}" for index, series in enumerate(dict.fromkeys(point.series for point in points))}
    for point in points:
        axes.plot(point.intensity, point.performance / 1e9, color=colours[point.series], marker=markers[point.task])
    for label, colour, marker in [(series, colour, "o") for series, colour in colours.items()] + [
        (task, "grey", marker) for task, marker in markers.items()
    ]:
        axes.plot([], [], color=colour, marker=marker, linestyle="none", label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="FLOP per byte of minimum memory traffic", ylabel="GFLOP/s", title=title
    )
    axes.grid(which="major", linewidth=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    _save(figure, path)


def check_plot(path: Path) -> None:
    """Check that a figure can be written, before the measurements that it shows.

    Raises:
        BenchmarkError: If the suffix is not that of an image format.
        MissingPackageError: If matplotlib is not installed.
        OutputError: If the file cannot be written.
    """
    check_output(path, make_folder=True)
    formats = _make_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix and path.suffix.removeprefix(".").lower() not in formats:
        allowed = ", ".join(f".{name}" for name in sorted(formats))
        raise BenchmarkError(f"the suffix of --plot must be one of {allowed}, got {str(path)!r}")


def _make_figure(width: float, height: float) -> Figure:
    with importing("benchmark"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    make_parent(path)
    with output_file(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix.removeprefix(".") or "png")
