"""Where the time of a network goes: every call of an operator, summed by operator.

A call counts with its fastest time over all runs, so that what else the machine does is left out; Python, which runs
between the calls, is left out too. On the CPU only: a GPU computes after the call has returned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from . import machine
from .networks import ATTENTIONS, RESNETS, TASKS, inference, make_candidates, training_step
from .report import Column, Report, Row, duration, percentage

COLUMNS = [
    Column("operator", "operator"),
    Column("calls", "calls"),
    Column("fastest_s", "time", duration),
    Column("share", "share", percentage),
]
LEAST_SHARE = 0.01  # of the time, for a row of the table


class Clock(TorchDispatchMode):
    """Takes the time of every operator called inside the block, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, float]] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the operator."""
        begin = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.calls.append((str(func).removesuffix(".default"), time.perf_counter() - begin))
        return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--depth", type=int, choices=RESNETS, default=19, help="default: 19")
    parser.add_argument("--task", choices=TASKS, default="inference", help="default: inference")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument("--size", type=int, default=224, help="height and width of an image (default: 224)")
    parser.add_argument("--runs", type=int, default=25, help="default: 25")


def run(arguments: argparse.Namespace) -> int:
    """Measures both SANs and the ResNet of one depth."""
    device = machine.prepare(arguments)
    if device.type != "cpu":
        raise SystemExit("--device must be cpu: a GPU computes after the call has returned")
    if arguments.quick:
        arguments.size, arguments.runs = min(arguments.size, 64), 2
    described = machine.describe(device) | {"image": f"{arguments.size} x {arguments.size}", "batch": arguments.batch}
    described |= {"task": arguments.task}
    report = Report("Calls", described, COLUMNS, ["network"], ("time: the fastest of each call, summed.",))
    image = torch.randn(arguments.batch, 3, arguments.size, arguments.size).to(machine.DTYPES[arguments.dtype])
    make_call = inference if arguments.task == "inference" else training_step
    for name, candidate in make_candidates(arguments.depth, ATTENTIONS, image).items():
        if candidate.how is nullcontext:  # what users get
            report.rows += ({"network": name} | row for row in measure(make_call(candidate), arguments.runs))
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def measure(call: Callable[[], object], runs: int) -> list[Row]:
    """A row for every operator that takes a share of the time, the slowest first, and one for all."""
    for _ in range(3):
        call()
    timed: list[list[tuple[str, float]]] = []
    for _ in range(runs):
        with Clock() as clock:
            call()
        timed.append(clock.calls)
    fastest: dict[str, list[float]] = {}
    for calls in zip(*timed, strict=True):
        fastest.setdefault(calls[0][0], []).append(min(seconds for _, seconds in calls))
    total = sum(map(sum, fastest.values()))
    rows: list[Row] = [
        {"operator": name, "calls": len(times), "fastest_s": sum(times), "share": sum(times) / total}
        for name, times in sorted(fastest.items(), key=lambda item: -sum(item[1]))
    ]
    everything: Row = {"operator": "all", "calls": sum(row["calls"] for row in rows), "fastest_s": total, "share": 1.0}
    return [*(row for row in rows if row["share"] >= LEAST_SHARE), everything]
