"""Time SAN10, SAN15 and SAN19 against the ResNets they replace: latency, images per second, peak memory.

torchvision's ResNet-26, 38 and 50 are timed in both memory layouts, and ratios are relative to the faster layout. Each
SAN is also timed without fused operators and in plain torch. A training step is a forward and a backward pass, timed
apart, with batch statistics, frozen norms, and frozen norms with a frozen stage 1.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..command_line import integer, number
from ..ops.backend import why_not
from . import machine, training
from .agreement import check_agreement, precision_notes, without_tf32
from .candidates import (
    ATTENTIONS,
    RESNETS,
    Candidate,
    add_amp,
    add_compiled,
    inference,
    make_candidates,
    training_step,
    unfused_version,
)
from .errors import BenchmarkError
from .measure import Timing, time_interleaved
from .memory import peak_memory
from .plot import Bar, plot_bars
from .report import Column, Report, Row, duration, ratio, size
from .training import FROZEN, add_frozen, check_gradients, measure_steps

TASKS = ("inference", "training step")
MIN_SIZE = 32  # the stride of all networks
GRADIENT_TOLERANCE = 1e-2  # of the norm of all gradients, in float64
MAX_CHECKED = 4  # images for which gradients are compared: without fused operators, a large batch needs much memory
COLUMNS = [
    Column("network", "network"),
    Column("median_s", "median", duration),
    *training.COLUMNS,
    Column("fastest_s", "fastest", duration),
    Column("ratio", "ratio", ratio),
    Column("images_per_s", "images/s", "{:.3g}".format),
    Column("peak_bytes", "peak memory", size),
    training.RESIDENT,
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--depth", nargs="+", type=int, choices=RESNETS, default=list(RESNETS), help="depths of the SANs (default: all)"
    )
    parser.add_argument(
        "--attention", nargs="+", choices=ATTENTIONS, default=ATTENTIONS, help="attentions of the SANs (default: both)"
    )
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS, help="tasks to time (default: both)")
    parser.add_argument(
        "--batch", nargs="+", type=integer(1, 2**16), metavar="N", help="batch sizes (default: 1 8, on a GPU 1 64)"
    )
    add_frozen(parser, FROZEN)
    add_size(parser)
    parser.add_argument(
        "--seconds", type=number(0), default=30, metavar="S", help="time limit of each table (default: 30)"
    )
    parser.add_argument(
        "--without-unfused",
        action="store_true",
        help="do not time the SANs without fused operators and in plain torch, which leaves time for more rounds",
    )
    parser.add_argument("--amp", action="store_true", help="also time the networks under autocast to bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="also time the networks with torch.compile; takes minutes"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also plot the times to FILE (needs matplotlib)")


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add the option for the size of images that all networks accept."""
    parser.add_argument(
        "--size",
        type=integer(MIN_SIZE, 2**14),
        default=224,
        metavar="PIXELS",
        help="height and width of the images (default: 224)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Time the networks of every depth at every batch size."""
    device, dtype = machine.prepare(arguments), machine.DTYPES[arguments.dtype]
    batches, depths = arguments.batch or ([1, 64] if device.type == "cuda" else [1, 8]), arguments.depth
    if arguments.quick:
        arguments.size, batches, depths = min(arguments.size, 64), batches[:1], depths[:1]
    check_training(arguments.task, arguments.frozen, min(batches), arguments.size)
    described = machine.describe(device) | {"dtype": arguments.dtype, "image": f"{arguments.size} x {arguments.size}"}
    report = Report(
        "Networks", described, COLUMNS, ["networks", "task", "norms", "batch"], tuple(notes(device, arguments))
    )
    for depth in depths:
        for batch in batches:
            image = torch.randn(batch, 3, arguments.size, arguments.size).to(device, dtype)
            candidates = make_candidates(depth, arguments.attention, image)
            if arguments.amp:
                add_amp(candidates)
            if arguments.compile:
                add_compiled(candidates)
            names = {"networks": f"SAN{depth} and ResNet-{RESNETS[depth][0]}", "batch": f"batch {batch}"}
            if "inference" in arguments.task:
                report.rows += (names | {"task": "inference"} | row for row in measure(candidates, arguments))
            for frozen in arguments.frozen if "training step" in arguments.task else ():
                task = {"task": "training step", "norms": FROZEN[frozen]}
                report.rows += (names | task | row for row in measure_training(candidates, frozen, arguments))
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    if arguments.plot:
        plot(arguments.plot, report)
    return 0


def check_training(tasks: Sequence[str], frozen: Sequence[str], batch: int, image_size: int) -> None:
    """Check that the norms of the last stage have more than one value for each channel, as batch statistics require.

    Raises:
        BenchmarkError: If they do not.
    """
    if "training step" in tasks and "nothing" in frozen and batch == 1 and image_size < 2 * MIN_SIZE:
        raise BenchmarkError(
            f"--size must be at least {2 * MIN_SIZE} for a training step with a batch size of 1, got {image_size}: "
            "batch norms need more than one value of each channel"
        )


def notes(device: torch.device, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield explanations of the tables."""
    yield "ratio: time relative to the ResNet in its faster layout, median of the rounds."
    yield "peak memory: maximum memory allocated during a call, without parameters and images."
    yield "unfused: without fused operators. plain torch: without native kernels."
    if arguments.amp:
        yield "AMP: under autocast to bfloat16. Ratios are relative to the ResNet without autocast."
    if "training step" in arguments.task:
        yield from training.notes(device, arguments.frozen)
    yield from precision_notes(device)
    if obstacle := why_not("native", device):
        yield f"All SANs use plain torch on this device: {obstacle}."


def measure(candidates: dict[str, Candidate], arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row of inference for every network, after a check that all versions of a SAN agree."""
    device = next(iter(candidates.values())).image.device
    with without_tf32():
        check_outputs({name: inference(candidate)() for name, candidate in candidates.items()})
    calls = {name: inference(candidate) for name, candidate in selected(candidates, arguments).items()}
    for call in calls.values():  # warm-up, so that folding and compilation do not count as peak memory
        call()
    memory = {name: peak_memory(call, device) for name, call in calls.items()}
    timings = time_interleaved(calls, device, **limits(arguments))
    yield from rows(timings, {name: {"peak_bytes": peak} for name, peak in memory.items()}, candidates)


def measure_training(candidates: dict[str, Candidate], frozen: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row of a training step for every network, after a check that the gradients of a SAN's versions agree."""
    device = next(iter(candidates.values())).image.device
    torch.compiler.reset()  # other modes of the networks would count towards the recompilation limit
    with without_tf32():
        check_all_gradients(candidates, frozen)
    steps = {name: training_step(network, frozen) for name, network in selected(candidates, arguments).items()}
    timings, measured = measure_steps(steps, device, **limits(arguments))
    yield from rows(timings, measured, candidates)


def selected(candidates: dict[str, Candidate], arguments: argparse.Namespace) -> dict[str, Candidate]:
    """Return the networks to time."""
    if not arguments.without_unfused:
        return candidates
    return {name: candidate for name, candidate in candidates.items() if candidate.is_default}


def limits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return for how long, and how often, every network is timed."""
    return {"seconds": 0 if arguments.quick else arguments.seconds, "min_rounds": 2 if arguments.quick else 5}


def rows(timings: dict[str, Timing], measured: dict[str, Row], candidates: dict[str, Candidate]) -> Iterator[Row]:
    """Yield a row for every network, with what else was measured of it."""
    resnets = [timing for name, timing in timings.items() if name.startswith("ResNet")]  # neither compiled nor AMP
    baseline = min(resnets, key=lambda timing: timing.median)
    for name, timing in timings.items():
        yield {
            "network": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(baseline),
            "images_per_s": len(candidates[name].image) / timing.median,
        } | measured[name]


def check_outputs(results: dict[str, Tensor]) -> None:
    """Compare the logits of every version of a SAN with those of the unfused one.

    Raises:
        BenchmarkError: If two versions differ.
    """
    for name, result in results.items():
        expected = results.get(unfused_version(name))
        if expected is not None:
            check_agreement(name, result, "unfused", expected)


def check_all_gradients(candidates: dict[str, Candidate], frozen: str) -> None:
    """Compare the gradients of every version of a SAN with those of the unfused one, for a few of the images.

    In float64: with few images and small maps, rounding in float32 changes gradients by several percent, since it
    decides on which side of a ReLU a number is. Even in float64 it decides for differences of positions that are 0.

    Raises:
        BenchmarkError: If two versions differ.
    """
    expected: dict[str, list[Tensor]] = {}
    for name, candidate in candidates.items():
        unfused = unfused_version(name)
        if unfused not in candidates or name == unfused or candidate.compiled is not None:
            continue  # a compiled network would be compiled for this shape too
        if candidate.amp:
            gradients = training_step(candidate, frozen).gradients()
            check_gradients(name, gradients, unfused, gradients, math.inf)  # only for NaN
            continue
        if unfused not in expected:
            expected = {unfused: training_step(_in_float64(candidates[unfused]), frozen).gradients()}
        gradients = training_step(_in_float64(candidate), frozen).gradients()
        check_gradients(name, gradients, unfused, expected[unfused], GRADIENT_TOLERANCE)


def _in_float64(candidate: Candidate) -> Candidate:
    """The network and a few of the images in float64."""
    model = copy.deepcopy(candidate.model).double()
    return candidate._replace(model=model, image=candidate.image[:MAX_CHECKED].double())


def plot(path: Path, report: Report) -> None:
    """Plot the medians of all rows, one panel for each table."""
    bars = [Bar(report.heading(row), row["network"], row["median_s"], row.get("forward_s")) for row in report.rows]
    title = f"{report.machine['device']}, {report.machine['threads']} threads, {report.machine['dtype']}"
    plot_bars(path, title, bars)
