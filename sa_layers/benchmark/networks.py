"""Time SAN10, SAN15 and SAN19 against the ResNets they replace: latency, images per second, peak memory.

torchvision's ResNet-26, 38 and 50 are timed in both memory layouts, and ratios are relative to the faster layout. Each
SAN is also timed without fused operators and in plain torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..command_line import integer, number
from ..extras import importing
from ..models import SelfAttentionClassifier
from ..ops import backend, fused
from ..ops.backend import why_not
from . import machine
from .agreement import check_agreement, precision_notes, without_tf32
from .errors import BenchmarkError
from .measure import Run, peak_memory, time_interleaved
from .plot import Bar, plot_bars
from .report import Column, Report, Row, duration, ratio, size

# For each SAN depth, the depth and the blocks of the ResNet that the paper compares it with.
RESNETS = {10: (26, (1, 2, 4, 1)), 15: (38, (2, 3, 5, 2)), 19: (50, (3, 4, 6, 3))}
ATTENTIONS = ("pairwise", "patchwise")
TASKS = ("inference", "training step")
MIN_SIZE = 32  # the stride of all networks
COLUMNS = [
    Column("network", "network"),
    Column("median_s", "median", duration),
    Column("fastest_s", "fastest", duration),
    Column("ratio", "ratio", ratio),
    Column("images_per_s", "images/s", "{:.3g}".format),
    Column("peak_bytes", "peak memory", size),
]


class Candidate(NamedTuple):
    """A network, its input and the context in which it is called."""

    model: nn.Module
    image: Tensor
    context: Callable[[], AbstractContextManager[None]] = nullcontext
    """Selects a backend or disables the fused operators. Defaults to the settings that users get."""


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
    add_size(parser)
    parser.add_argument(
        "--seconds", type=number(0), default=30, metavar="S", help="time limit of each table (default: 30)"
    )
    parser.add_argument(
        "--without-unfused",
        action="store_true",
        help="do not time inference without fused operators and in plain torch, which leaves time for more rounds",
    )
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
    check_training(arguments.task, min(batches), arguments.size)
    described = machine.describe(device) | {"dtype": arguments.dtype, "image": f"{arguments.size} x {arguments.size}"}
    report = Report("Networks", described, COLUMNS, ["networks", "task", "batch"], tuple(notes(device)))
    for depth in depths:
        for batch in batches:
            image = torch.randn(batch, 3, arguments.size, arguments.size).to(device, dtype)
            candidates = make_candidates(depth, arguments.attention, image)
            if arguments.compile:
                add_compiled(candidates)
            for task in arguments.task:
                names = {
                    "networks": f"SAN{depth} and ResNet-{RESNETS[depth][0]}",
                    "task": task,
                    "batch": f"batch {batch}",
                }
                report.rows += (names | row for row in measure(candidates, task, arguments))
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    if arguments.plot:
        plot(arguments.plot, report)
    return 0


def check_training(tasks: Sequence[str], batch: int, image_size: int) -> None:
    """Check that the norms of the last stage have more than one value for each channel, as training requires.

    Raises:
        BenchmarkError: If they do not.
    """
    if "training step" in tasks and batch == 1 and image_size < 2 * MIN_SIZE:
        raise BenchmarkError(
            f"--size must be at least {2 * MIN_SIZE} for a training step with a batch size of 1, got {image_size}: "
            "batch norms need more than one value of each channel"
        )


def notes(device: torch.device) -> Iterator[str]:
    """Yield explanations of the tables."""
    yield "ratio: time relative to the ResNet in its faster layout, median of the rounds."
    yield "peak memory: maximum memory allocated during a call, without parameters, images and optimizer state."
    yield "unfused: without fused operators. plain torch: without native kernels."
    yield from precision_notes(device)
    if obstacle := why_not("native", device):
        yield f"All SANs use plain torch on this device: {obstacle}."


def make_candidates(depth: int, attentions: Sequence[str], image: Tensor) -> dict[str, Candidate]:
    """Make the networks of one depth, by name."""
    with importing("benchmark"):
        from torchvision.models.resnet import Bottleneck, ResNet

    device, dtype = image.device, image.dtype
    candidates = {}
    for attention in attentions:
        model, name = SelfAttentionClassifier(depth, attention).to(device, dtype), f"SAN{depth} {attention}"
        candidates[name] = Candidate(model, image)
        candidates[f"{name}, unfused"] = Candidate(model, image, partial(fused, False))
        candidates[f"{name}, plain torch"] = Candidate(model, image, partial(backend, "torch"))
    resnet_depth, blocks = RESNETS[depth]
    for name, layout in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        model = ResNet(Bottleneck, list(blocks)).to(device, dtype).to(memory_format=layout)
        candidates[f"ResNet-{resnet_depth}{name}"] = Candidate(model, image.to(memory_format=layout))
    return candidates


def add_compiled(candidates: dict[str, Candidate]) -> None:
    """Add compiled versions of the networks with default settings."""
    torch.compiler.reset()  # earlier shapes would count towards the recompilation limit
    for name, candidate in list(candidates.items()):
        if candidate.context is nullcontext:
            compiled: Any = torch.compile(candidate.model, dynamic=False)
            candidates[f"compiled: {name}"] = candidate._replace(model=compiled)


def measure(candidates: dict[str, Candidate], task: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for every network, after a check that all versions of a SAN agree."""
    device = next(iter(candidates.values())).image.device
    calls: dict[str, Run]
    if task == "inference":
        check_equal(candidates)
        if arguments.without_unfused:
            candidates = {name: candidate for name, candidate in candidates.items() if candidate.context is nullcontext}
        calls = {name: inference(candidate) for name, candidate in candidates.items()}
    else:  # training does not use the fused operators
        calls = {name: training_step(candidate) for name, candidate in candidates.items() if "unfused" not in name}
    for call in calls.values():  # warm-up, so that folding and compilation do not count as peak memory
        call()
    memory = {name: peak_memory(call, device) for name, call in calls.items()}
    timings = time_interleaved(
        calls, device, seconds=0 if arguments.quick else arguments.seconds, min_rounds=2 if arguments.quick else 5
    )
    resnets = [timing for name, timing in timings.items() if name.startswith("ResNet")]
    baseline = min(resnets, key=lambda timing: timing.median)
    for name, timing in timings.items():
        yield {
            "network": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(baseline),
            "images_per_s": len(candidates[name].image) / timing.median,
            "peak_bytes": memory[name],
        }


def inference(candidate: Candidate) -> Callable[[], Tensor]:
    """Return a function that classifies the images."""
    model = candidate.model.eval()

    def classify() -> Tensor:
        with torch.no_grad(), candidate.context():
            return model(candidate.image)

    return classify


def training_step(candidate: Candidate) -> Run:
    """Return a function that performs one SGD step."""
    model, image = candidate.model.train(), candidate.image
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    target = torch.zeros(len(image), dtype=torch.long, device=image.device)

    def step() -> None:
        with candidate.context():
            F.cross_entropy(model(image), target).backward()
            optimizer.step()
            optimizer.zero_grad()  # at the end, so that the gradients count towards the step's peak memory

    return step


def check_equal(candidates: dict[str, Candidate]) -> None:
    """Compare every version of a SAN with the unfused one.

    Raises:
        BenchmarkError: If two versions differ.
    """
    with without_tf32():
        results = {name: inference(candidate)() for name, candidate in candidates.items()}
    for name, result in results.items():
        network = name.removeprefix("compiled: ").partition(",")[0]
        expected = results.get(f"{network}, unfused")
        if expected is not None:
            check_agreement(name, result, "unfused", expected)


def plot(path: Path, report: Report) -> None:
    """Plot the medians of all rows, one panel for each table."""
    bars = [
        Bar(f"{row['networks']}, {row['task']}, {row['batch']}", row["network"], row["median_s"]) for row in report.rows
    ]
    title = f"{report.machine['device']}, {report.machine['threads']} threads, {report.machine['dtype']}"
    plot_bars(path, title, bars)
