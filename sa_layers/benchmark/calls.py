"""Profile a network: the time spent in each operator, summed over its calls.

Each call counts with its fastest time over all runs, which excludes disturbances by other processes. Python code
between the calls is not included. CPU only: on a GPU, calls return before the computation is finished.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..command_line import integer
from . import machine
from .candidates import ATTENTIONS, RESNETS, inference, make_candidates, training_step
from .errors import BenchmarkError
from .networks import TASKS, add_size, check_training
from .report import Column, Report, Row, duration, percentage
from .training import FROZEN, add_frozen

COLUMNS = [
    Column("operator", "operator"),
    Column("calls", "calls"),
    Column("fastest_s", "time", duration),
    Column("share", "share", percentage),
]
MIN_SHARE = 0.01  # operators with a smaller share of the time are not listed


class OperatorTimer(TorchDispatchMode):
    """Record the name and the time of every operator call inside the block, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, float]] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call and time the operator."""
        begin = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.calls.append((str(func).removesuffix(".default"), time.perf_counter() - begin))
        return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--depth", type=int, choices=RESNETS, default=19, help="depth of the SANs (default: 19)")
    parser.add_argument("--task", choices=TASKS, default="inference", help="task to profile (default: inference)")
    add_frozen(parser, FROZEN, default="nothing")
    parser.add_argument("--batch", type=integer(1, 2**16), default=1, metavar="N", help="batch size (default: 1)")
    add_size(parser)
    parser.add_argument("--runs", type=integer(1), default=25, metavar="N", help="number of runs (default: 25)")


def run(arguments: argparse.Namespace) -> int:
    """Profile both SANs of one depth and the corresponding ResNet."""
    device = machine.prepare(arguments)
    if device.type != "cpu":
        raise BenchmarkError(
            f"--device must be cpu, got {arguments.device}: on a GPU, calls return before the computation is finished"
        )
    if arguments.quick:
        arguments.size, arguments.runs = min(arguments.size, 64), 2
    check_training([arguments.task], [arguments.frozen], arguments.batch, arguments.size)
    described = machine.describe(device) | {"image": f"{arguments.size} x {arguments.size}", "batch": arguments.batch}
    described |= {"task": arguments.task}
    if arguments.task == "training step":
        described |= {"norms": FROZEN[arguments.frozen]}
    note = "time: the fastest time of each call, summed over all calls of the operator."
    report = Report("Calls", described, COLUMNS, ["network"], (note,))
    image = torch.randn(arguments.batch, 3, arguments.size, arguments.size).to(machine.DTYPES[arguments.dtype])
    is_inference = arguments.task == "inference"
    for name, candidate in make_candidates(arguments.depth, ATTENTIONS, image).items():
        if candidate.is_default:
            call = inference(candidate) if is_inference else training_step(candidate, arguments.frozen)
            report.rows += ({"network": name} | row for row in measure(call, arguments.runs))
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def measure(call: Callable[[], object], runs: int) -> list[Row]:
    """Return a row for every operator above :data:`MIN_SHARE`, slowest first, and a row for the total."""
    for _ in range(3):
        call()
    timed: list[list[tuple[str, float]]] = []
    for _ in range(runs):
        with OperatorTimer() as timer:
            call()
        timed.append(timer.calls)
    fastest: dict[str, list[float]] = {}
    for calls in zip(*timed, strict=True):
        fastest.setdefault(calls[0][0], []).append(min(seconds for _, seconds in calls))
    total = sum(map(sum, fastest.values()))
    rows: list[Row] = [
        {"operator": name, "calls": len(times), "fastest_s": sum(times), "share": sum(times) / total}
        for name, times in sorted(fastest.items(), key=lambda item: -sum(item[1]))
    ]
    total_row: Row = {"operator": "all", "calls": sum(row["calls"] for row in rows), "fastest_s": total, "share": 1.0}
    return [*(row for row in rows if row["share"] >= MIN_SHARE), total_row]
