"""The figures of docs/evidence.md. Each contains a digest of what it shows, so that a stale figure is recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from sa_layers.output_file import make_parent, output_file

from .evaluation import QUARTERS
from .measures import Results, accuracy, attack_success
from .networks import NETWORKS
from .timing import Times

DIGEST = "Shown"
COSTS = {"parameters": ("parameters, millions", 1e6), "multiply_adds": ("multiply-adds, millions", 1e6)}


class Series(NamedTuple):
    """Points of a network: the mean, and every seed."""

    name: str
    x: tuple[float, ...]
    y: tuple[tuple[float, ...], ...]
    """For each x, the values of all seeds."""


class Panel(NamedTuple):
    """Axes with a series for each network."""

    x_label: str
    y_label: str
    series: tuple[Series, ...]
    lines: bool
    """Whether the points of a network are joined."""


def cost_panels(results: Results, networks: Sequence[str], times: Times) -> list[Panel]:
    """Accuracy over parameters, multiply-adds, and milliseconds where they were measured."""
    panels = []
    measured = {name: runs for name in networks if (runs := results.runs.get(name))}
    points = {name: tuple(results.of(name, accuracy).values()) for name in measured}
    for key, (label, unit) in COSTS.items():
        costs = {name: next(iter(runs.values()))["results"][key] / unit for name, runs in measured.items()}
        panels.append(_panel(label, {name: ((cost,), (points[name],)) for name, cost in costs.items()}))
    for batch in times.batches(measured):
        series = {name: ((times.milliseconds(name, batch),), (points[name],)) for name in measured}
        panels.append(_panel(f"ms an image, batch of {batch}", series))
    return panels


def rotation_panels(results: Results, networks: Sequence[str]) -> list[Panel]:
    """Accuracy over the angle by which images are rotated."""
    series = {}
    for name in networks:
        if name in results.runs:
            angles = [tuple(results.of(name, partial(accuracy, degrees=degrees)).values()) for degrees in QUARTERS]
            series[name] = (tuple(map(float, QUARTERS)), tuple(angles))
    return [_panel("rotation, degrees", series, lines=True)]


def attack_panels(results: Results, networks: Sequence[str]) -> list[Panel]:
    """Success of the attack over its bound, a panel for each number of steps."""
    panels = []
    for steps in results.recipe["attack_steps"]:
        series = {}
        for name in networks:
            if name in results.runs:
                found = [
                    tuple(results.of(name, partial(attack_success, epsilon=epsilon, steps=steps)).values())
                    for epsilon in results.recipe["epsilons"]
                ]
                series[name] = (tuple(map(float, results.recipe["epsilons"])), tuple(found))
        label = f"bound, 255ths ({steps} {'step' if steps == 1 else 'steps'})"
        panels.append(_panel(label, series, "classified as the target, %", lines=True))
    return panels


def _panel(x_label: str, series: dict[str, Any], y_label: str = "top-1, %", lines: bool = False) -> Panel:
    named = tuple(Series(NETWORKS[name].title, x, y) for name, (x, y) in series.items())
    return Panel(x_label, y_label, named, lines)


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draw panels beside each other, unless the file already shows the same."""
    if is_current(path, panels):
        return
    figure = Figure(figsize=(max(5, 3.4 * len(panels)), 3.6), layout="constrained")  # 5: the width of the legend
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for panel, axes in zip(panels, grid, strict=True):
        _draw_panel(axes, panel)
    grid[0].set_ylabel(panels[0].y_label)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    make_parent(path)
    with output_file(path) as partial_file:
        figure.savefig(partial_file, dpi=110, format="png", metadata={DIGEST: digest(panels), "Software": None})


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for index, series in enumerate(panel.series):
        means = [fmean(values) for values in series.y]
        colour = f"C{index}"
        style = "-" if panel.lines else "none"
        axes.plot(series.x, means, marker="o", color=colour, linestyle=style, label=series.name)
        for x, values in zip(series.x, series.y, strict=True):
            axes.plot([x] * len(values), values, ".", color=colour, markersize=4, alpha=0.5)
    if panel.lines:
        axes.set_xticks(panel.series[0].x if panel.series else ())
    axes.margins(0.15)
    axes.set_xlabel(panel.x_label)
    axes.grid(linewidth=0.3)


def digest(panels: Sequence[Panel]) -> str:
    """Return a digest of what panels show.

    >>> digest([Panel("x", "y", (), False)]) == digest([Panel("x", "y", (), True)])
    False
    """
    return hashlib.sha256(json.dumps(panels).encode()).hexdigest()[:16]


def is_current(path: Path, panels: Sequence[Panel]) -> bool:
    """Whether a file exists and shows these panels."""
    if not path.exists():
        return False
    with Image.open(path) as image:
        return image.info.get(DIGEST) == digest(panels)
