"""Time whole attentions in evaluation: the fused kernel against the separate operators, at the stages of SAN19.

An attention consists of relation, position, mapping, softmax and aggregation. The linear layers that compute query,
key and value are not included. The operands are channels last.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from ..command_line import integer, number
from ..layers import PairwiseSelfAttention, PatchwiseSelfAttention
from ..layers.self_attention import SelfAttention
from ..ops import backend, fused
from ..ops.backend import why_not
from . import machine
from .agreement import check_agreement, precision_notes, without_tf32
from .errors import BenchmarkError
from .measure import time_interleaved
from .memory import peak_memory
from .problems import OURS, STAGES, Stage
from .report import Column, Report, Row, duration, ratio, size

COLUMNS = [
    Column("implementation", "implementation"),
    Column("median_s", "median", duration),
    Column("fastest_s", "fastest", duration),
    Column("ratio", "ratio", ratio),
    Column("peak_bytes", "peak memory", size),
]
ATTENTIONS: dict[str, type[SelfAttention]] = {"pairwise": PairwiseSelfAttention, "patchwise": PatchwiseSelfAttention}
IMPLEMENTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    OURS: nullcontext,
    "unfused": partial(fused, False),
    "plain torch": partial(backend, "torch"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--attention",
        nargs="+",
        choices=ATTENTIONS,
        default=list(ATTENTIONS),
        help="attentions to time (default: both)",
    )
    parser.add_argument(
        "--batch", nargs="+", type=integer(1, 2**16), default=[1], metavar="N", help="batch sizes (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=number(0), default=5, metavar="S", help="time limit of each table (default: 5)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Time the attentions at every stage and batch size."""
    device, dtype = machine.prepare(arguments), machine.DTYPES[arguments.dtype]
    described = machine.describe(device) | {"dtype": arguments.dtype}
    report = Report("Whole attentions", described, COLUMNS, ["attention", "stage", "batch"], tuple(notes(device)))
    for name in arguments.attention:
        for batch in arguments.batch:
            for index, stage in list(enumerate(STAGES))[-1:] if arguments.quick else enumerate(STAGES):
                layer, operands = make_problem(name, stage, batch, dtype, device)
                described_stage = f"{index}: {stage.value_channels} x {stage.side} x {stage.side}"
                labels: Row = {"attention": name, "stage": described_stage, "batch": f"batch {batch}"}
                rows = measure(layer, operands, seconds=0 if arguments.quick else arguments.seconds)
                report.rows += (labels | row for row in rows)
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def notes(device: torch.device) -> Iterator[str]:
    """Yield explanations of the tables."""
    yield f"ratio: time relative to {OURS}, median of the rounds."
    yield "unfused: one native operator after another. plain torch: without native kernels."
    yield "peak memory: maximum memory allocated during a call, without its operands."
    yield from precision_notes(device)
    if obstacle := why_not("native", device):
        yield f"{OURS} uses plain torch on this device: {obstacle}."


def make_problem(
    name: str, stage: Stage, batch: int, dtype: torch.dtype, device: torch.device
) -> tuple[SelfAttention, tuple[Tensor, ...]]:
    """Make a layer with random parameters, and query, key and value as slices of one tensor.

    Raises:
        BenchmarkError: If native kernels are available but no fused kernel supports the layer.
    """
    torch.manual_seed(0)
    channels = (stage.relation_channels, stage.relation_channels, stage.value_channels)
    layer = ATTENTIONS[name](
        4 * stage.value_channels,
        stage.value_channels,
        stage.kernel_size,
        relation_channels=stage.relation_channels,
        share=stage.value_channels // stage.weight_channels,
    )
    layer = layer.to(device, dtype).eval().requires_grad_(False)
    pixels = torch.randn(batch, stage.side, stage.side, sum(channels)).to(device, dtype)
    operands = pixels.permute(0, 3, 1, 2).split(channels, dim=1)
    obstacle = layer.why_not_fused(*operands)
    if obstacle is not None and why_not("native", device) is None:
        raise BenchmarkError(f"{name} attention is not fused here: {obstacle}")
    return layer, operands


def measure(layer: SelfAttention, operands: tuple[Tensor, ...], *, seconds: float) -> Iterator[Row]:
    """Yield a row for every implementation, after a check that their results agree."""
    device = operands[0].device
    calls = {name: partial(attend, layer, operands, context) for name, context in IMPLEMENTATIONS.items()}
    with without_tf32():
        results = {name: call() for name, call in calls.items()}
    for name, result in results.items():
        check_agreement(name, result, OURS, results[OURS])
    memory = {name: peak_memory(call, device) for name, call in calls.items()}
    timings = time_interleaved(calls, device, seconds=seconds, min_rounds=5 if seconds else 2)
    for name, timing in timings.items():
        yield {
            "implementation": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(timings[OURS]),
            "peak_bytes": memory[name],
        }


@torch.no_grad()
def attend(
    layer: SelfAttention, operands: tuple[Tensor, ...], context: Callable[[], AbstractContextManager[None]]
) -> Tensor:
    """Compute the attention once, inside the given context."""
    with context():
        return layer.attend(*operands)
