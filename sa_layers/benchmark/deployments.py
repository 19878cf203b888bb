"""Time SANs against the ResNet that they replace in every runtime: torch, onnxruntime and OpenVINO.

All networks are timed in turns, in one process and on the same number of threads. Ratios are relative to the ResNet in
the same runtime, and to the ResNet in its fastest runtime on this machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..command_line import integer, number
from . import machine
from .agreement import check_agreement
from .candidates import ATTENTIONS, RESNETS, make_networks
from .errors import BenchmarkError
from .measure import time_interleaved
from .networks import add_size, limits
from .report import Column, Report, Row, duration, ratio
from .runtimes import RUNTIMES, Deployed

COLUMNS = [
    Column("network", "network"),
    Column("runtime", "runtime"),
    Column("lower_s", "quartile", duration),
    Column("median_s", "median", duration),
    Column("upper_s", "quartile", duration),
    Column("ratio", "ratio", ratio),
    Column("ratio_to_fastest", "to fastest ResNet", ratio),
    Column("images_per_s", "images/s", "{:.3g}".format),
    Column("prepare_s", "prepared in", duration),
]
NOTES = (
    "ratio: time relative to the ResNet in the same runtime, median of the rounds. to fastest ResNet: to the ResNet in "
    "its fastest runtime.",
    "prepared in: time to export, compile or load the network. OpenVINO reads the file that was exported for "
    "onnxruntime.",
)


class Deployment(NamedTuple):
    """A network in a runtime."""

    network: str
    runtime: str
    call: Deployed
    prepare_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--depth", type=int, choices=RESNETS, default=19, help="depth of the SANs (default: 19)")
    parser.add_argument(
        "--attention", nargs="+", choices=ATTENTIONS, default=ATTENTIONS, help="attentions of the SANs (default: both)"
    )
    parser.add_argument(
        "--runtime", nargs="+", choices=RUNTIMES, help="runtimes (default: those whose packages are installed)"
    )
    parser.add_argument(
        "--batch", nargs="+", type=integer(1, 2**16), default=[1], metavar="N", help="batch sizes (default: 1)"
    )
    add_size(parser)
    parser.add_argument(
        "--seconds", type=number(0), default=60, metavar="S", help="time limit of each table (default: 60)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Time the networks in all runtimes at every batch size."""
    device, dtype = machine.prepare(arguments), machine.DTYPES[arguments.dtype]
    if device.type != "cpu" or dtype != torch.float32:
        raise BenchmarkError(f"deployments are timed on a CPU in float32, got {device} and {arguments.dtype}")
    if arguments.quick:
        arguments.size, arguments.batch = min(arguments.size, 64), arguments.batch[:1]
    described = machine.describe(device) | {"image": f"{arguments.size} x {arguments.size}"}
    runtimes = chosen_runtimes(arguments.runtime)
    described |= {name: version for name in runtimes if (version := RUNTIMES[name].version()) is not None}
    report = Report("Deployments", described, COLUMNS, ["networks", "batch"], NOTES)
    example = torch.randn(max(arguments.batch), 3, arguments.size, arguments.size)
    deployments = deploy(arguments, runtimes, example)
    names = f"SAN{arguments.depth} and ResNet-{RESNETS[arguments.depth][0]}"
    for batch in arguments.batch:
        section = {"networks": names, "batch": f"batch {batch}"}
        report.rows += (section | row for row in measure(deployments, example[:batch], arguments))
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def chosen_runtimes(names: list[str] | None) -> list[str]:
    """The runtimes to time: those asked for, or those whose packages are installed.

    Raises:
        BenchmarkError: If a package of a runtime that was asked for is missing.
    """
    if names is None:
        return [name for name, runtime in RUNTIMES.items() if runtime.missing_package() is None]
    for name in names:
        if missing := RUNTIMES[name].missing_package():
            raise BenchmarkError(f"runtime {name!r} needs {missing}, which is not installed")
    return names


def deploy(arguments: argparse.Namespace, runtimes: list[str], image: Tensor) -> list[Deployment]:
    """Prepare every network in every runtime."""
    deployments = []
    for network, model in make_networks(arguments.depth, arguments.attention).items():
        with tempfile.TemporaryDirectory() as folder:
            for name in runtimes:
                begin = time.perf_counter()
                call = RUNTIMES[name].prepare(model.eval(), image, Path(folder))
                deployments.append(Deployment(network, name, call, time.perf_counter() - begin))
    return deployments


def measure(deployments: list[Deployment], image: Tensor, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for every deployment, after a check that those of a network agree."""
    expected: dict[str, tuple[str, Tensor]] = {}
    for network, runtime, call, _ in deployments:
        name, logits = f"{network} in {runtime}", call(image)
        check_agreement(name, logits, *expected.setdefault(network, (name, logits)))
    calls = {f"{each.network} in {each.runtime}": partial(each.call, image) for each in deployments}
    timings = list(time_interleaved(calls, image.device, **limits(arguments)).values())
    resnets = {
        each.runtime: timing
        for each, timing in zip(deployments, timings, strict=True)
        if each.network.startswith("ResNet")
    }
    fastest = min(resnets.values(), key=lambda timing: timing.median)
    for each, timing in zip(deployments, timings, strict=True):
        lower, upper = timing.quartiles
        yield {
            "network": each.network,
            "runtime": RUNTIMES[each.runtime].heading,
            "lower_s": lower,
            "median_s": timing.median,
            "upper_s": upper,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(resnets[each.runtime]),
            "ratio_to_fastest": timing.ratio_to(fastest),
            "images_per_s": len(image) / timing.median,
            "prepare_s": each.prepare_s,
        }
