"""Times as bars, in a panel for each thing that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple


class Bar(NamedTuple):
    """One measurement."""

    panel: str
    name: str
    seconds: float


def plot_bars(path: Path, title: str, bars: Sequence[Bar]) -> None:
    """Draws the bars of every panel from zero, the names beside them.

    Args:
        path: The picture to write; its ending is its format.
        title: What was measured, and on what.
        bars: The measurements; those of a panel follow one another.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("a plot needs matplotlib: pip install 'sa-layers[benchmark]'") from None
    panels = [(name, list(group)) for name, group in groupby(bars, lambda bar: bar.panel)]
    heights = [len(group) + 2 for _, group in panels]
    figure = Figure(figsize=(9, 0.3 * sum(heights) + 0.5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
    for (name, group), axes in zip(panels, grid[:, 0], strict=True):
        colours = ["C0" if "ResNet" in bar.name else "C1" for bar in group]
        drawn = axes.barh([bar.name for bar in group], [1000 * bar.seconds for bar in group], color=colours)
        axes.bar_label(drawn, fmt="%.3g", padding=3)
        axes.margins(x=0.12)  # room for the numbers
        axes.invert_yaxis()  # the first on top
        axes.set(title=name, xlabel="ms")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
