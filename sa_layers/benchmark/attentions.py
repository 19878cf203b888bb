"""Time whole attentions, fused against the separate operators, at the stages of SAN19: inference and training steps.

An attention consists of relation, position, mapping, softmax and aggregation. The linear layers that compute query,
key and value are not included. The operands are channels last. A training step computes the output and the gradients
of query, key, value and all parameters, with batch statistics or frozen norms.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from ..command_line import integer, number
from ..layers import PairwiseSelfAttention, PatchwiseSelfAttention
from ..layers.self_attention import SelfAttention
from ..ops import backend, fused
from ..ops.backend import why_not
from . import machine, training
from .agreement import check_agreement, precision_notes, without_tf32
from .errors import BenchmarkError
from .measure import Timing, time_interleaved
from .memory import peak_memory
from .problems import OURS, STAGES, Stage
from .report import Column, Report, Row, duration, ratio, size
from .training import GRADIENT_TOLERANCES, TrainingStep, add_frozen, check_gradients, measure_steps, prepare_training

COLUMNS = [
    Column("implementation", "implementation"),
    Column("median_s", "median", duration),
    *training.COLUMNS,
    Column("fastest_s", "fastest", duration),
    Column("ratio", "ratio", ratio),
    Column("peak_bytes", "peak memory", size),
    training.RESIDENT,
]
TASKS = ("inference", "training step")
ATTENTIONS: dict[str, type[SelfAttention]] = {"pairwise": PairwiseSelfAttention, "patchwise": PatchwiseSelfAttention}
FROZEN = ("nothing", "norms")  # the parts of a layer that a training step may freeze
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
    parser.add_argument("--task", nargs="+", choices=TASKS, default=TASKS, help="tasks to time (default: both)")
    add_frozen(parser, FROZEN)
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
    frozen = arguments.frozen if "training step" in arguments.task else []
    section = ["attention", "task", "norms", "stage", "batch"]
    report = Report("Whole attentions", described, COLUMNS, section, tuple(notes(device, frozen)))
    seconds = 0 if arguments.quick else arguments.seconds
    for name in arguments.attention:
        for batch in arguments.batch:
            for index, stage in list(enumerate(STAGES))[-1:] if arguments.quick else enumerate(STAGES):
                layer, operands = make_problem(name, stage, batch, dtype, device)
                described_stage = f"{index}: {stage.value_channels} x {stage.side} x {stage.side}"
                labels: Row = {"attention": name, "stage": described_stage, "batch": f"batch {batch}"}
                if "inference" in arguments.task:
                    check_fused(name, layer, operands)
                    inference = labels | {"task": "inference"}
                    report.rows += (inference | row for row in measure(layer, operands, seconds=seconds))
                for answer in frozen:
                    step = labels | {"task": "training step", "norms": training.FROZEN[answer]}
                    report.rows += (step | row for row in measure_training(layer, operands, answer, seconds=seconds))
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def notes(device: torch.device, frozen: Sequence[str]) -> Iterator[str]:
    """Yield explanations of the tables."""
    yield f"ratio: time relative to {OURS}, median of the rounds."
    yield "unfused: one native operator after another. plain torch: without native kernels."
    yield "peak memory: maximum memory allocated during a call, without its operands."
    if frozen:
        yield from training.notes(device, frozen)
    yield from precision_notes(device)
    if obstacle := why_not("native", device):
        yield f"{OURS} uses plain torch on this device: {obstacle}."


def make_problem(
    name: str, stage: Stage, batch: int, dtype: torch.dtype, device: torch.device
) -> tuple[SelfAttention, tuple[Tensor, ...]]:
    """Make a layer with random parameters in evaluation, and query, key and value as slices of one tensor."""
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
    return layer, pixels.permute(0, 3, 1, 2).split(channels, dim=1)


def check_fused(name: str, layer: SelfAttention, operands: tuple[Tensor, ...]) -> None:
    """Check that inference is fused where native kernels are available.

    Raises:
        BenchmarkError: If no fused kernel supports the layer.
    """
    obstacle = layer.why_not_fused(*operands)
    if obstacle is not None and why_not("native", operands[0].device) is None:
        raise BenchmarkError(f"{name} attention is not fused here: {obstacle}")


def measure(layer: SelfAttention, operands: tuple[Tensor, ...], *, seconds: float) -> Iterator[Row]:
    """Yield a row of inference for every implementation, after a check that their results agree."""
    device = operands[0].device
    calls = {
        name: torch.no_grad()(partial(attend, layer, operands, context)) for name, context in IMPLEMENTATIONS.items()
    }
    with without_tf32():
        results = {name: call() for name, call in calls.items()}
    for name, result in results.items():
        check_agreement(name, result, OURS, results[OURS])
    memory = {name: peak_memory(call, device) for name, call in calls.items()}
    timings = time_interleaved(calls, device, seconds=seconds, min_rounds=5 if seconds else 2)
    yield from rows(timings, {name: {"peak_bytes": peak} for name, peak in memory.items()})


def measure_training(
    layer: SelfAttention, operands: tuple[Tensor, ...], frozen: str, *, seconds: float
) -> Iterator[Row]:
    """Yield a row of a training step for every implementation, after a check that their gradients agree."""
    device, dtype = operands[0].device, operands[0].dtype
    layer = copy.deepcopy(layer)
    prepare_training(layer, frozen)
    leaves = tuple(operand.detach().requires_grad_() for operand in operands)
    grad_output = torch.randn(leaves[2].shape).to(leaves[2]).contiguous(memory_format=torch.channels_last)
    steps = {
        name: TrainingStep(partial(attend, layer, leaves, context), (*leaves, *layer.parameters()), grad_output)
        for name, context in IMPLEMENTATIONS.items()
    }
    with without_tf32():
        gradients = {name: step.gradients() for name, step in steps.items()}
    for name, found in gradients.items():
        check_gradients(name, found, OURS, gradients[OURS], GRADIENT_TOLERANCES[dtype])
    yield from rows(*measure_steps(steps, device, seconds=seconds, min_rounds=5 if seconds else 2))


def rows(timings: dict[str, Timing], measured: dict[str, Row]) -> Iterator[Row]:
    """Yield a row for every implementation, with what else was measured of it."""
    for name, timing in timings.items():
        yield {
            "implementation": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(timings[OURS]),
        } | measured[name]


def attend(
    layer: SelfAttention, operands: tuple[Tensor, ...], context: Callable[[], AbstractContextManager[None]]
) -> Tensor:
    """Compute the attention once, inside the given context."""
    with context():
        return layer.attend(*operands)
