"""The page says what the ledger has of the tasks, and what it has not."""

from __future__ import annotations

from typing import Any

from experiments.task_page import task_sections
from experiments.tasks import TASKS


def invent_task(purpose: str, network: str, seed: int, value: float) -> dict[str, Any]:
    return {
        "purpose": purpose,
        "network": network,
        "seed": seed,
        "recipe": {"config": TASKS[purpose].config.format(network)},
        "results": {TASKS[purpose].metric: value, "parameters": 10_123_456},
        "measured": {"device": "a processor", "threads": 1},
    }


def test_without_runs() -> None:
    page = "\n".join(task_sections([{"purpose": "time", "network": "resnet26"}]))
    assert page.count("**Not run yet.**") == len(TASKS)


def test_with_runs() -> None:
    """Every seed is shown; the difference is that of common seeds."""
    values = {"san10-patchwise": (41.5, 43.5), "resnet26": (40.0, 41.0, 39.0)}
    records = [
        invent_task("bccd", network, seed, value)
        for network, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    page = "\n".join(task_sections(records))
    assert page.count("**Not run yet.**") == len(TASKS) - 1
    assert "| ResNet-26 | random weights | 10.1 M | 40.0 ± 2.5 | 40.0, 41.0, 39.0 | `atss_resnet26_fpn_" in page
    assert "| ResNet-26 | Imagenette |  | not run yet |  |  |" in page
    assert "| SAN10 patchwise minus ResNet-26, random weights | +2.0 ± 6.4 |" in page
    assert "Run on a processor (one thread)." in page


def test_one_network() -> None:
    page = "\n".join(task_sections([invent_task("camvid", "resnet26", 0, 40.0)]))
    assert "| SAN10 patchwise | random weights |  | not run yet |  |  |" in page
    assert "40.0 (one seed)" in page
    assert "Difference" not in page


def test_pretrained() -> None:
    records = [
        invent_task("camvid", "resnet26", seed, value) | weights
        for weights, values in (({}, (40.0, 41.0)), ({"weights": "abc"}, (44.0, 45.0)))
        for seed, value in enumerate(values)
    ]
    page = "\n".join(task_sections(records))
    assert "| ResNet-26 | Imagenette | 10.1 M | 44.5 ± 6.4 | 44.0, 45.0 |" in page
    assert "| ResNet-26: Imagenette minus random weights | +4.0 ± 0.0 |" in page
