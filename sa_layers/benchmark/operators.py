"""The operators at the shapes of SAN19, against the same written in other ways.

Forward, and forward with backward: time, peak memory, and the share of the speed at which the machine merely copies as
many bytes as the operator has to read and write.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..ops import Footprint
from ..ops.backend import why_not
from . import machine, one_thread_per_output
from .agreement import check_agreement, precision_notes, without_tf32
from .measure import Run, copying, fastest_product, peak_memory, time_in_turn
from .problems import OURS, PROBLEMS, REFERENCE, STAGES, Operator, Problem
from .report import Column, Report, Row, duration, percentage, rate, ratio, size
from .roofline import Point, plot_roofline

COLUMNS = [
    Column("implementation", "implementation"),
    Column("median_s", "median", duration),
    Column("ratio", "ratio", ratio),
    Column("peak_bytes", "peak memory", size),
    Column("flops_per_s", "speed", rate),
    Column("share_of_copy", "of copy", percentage),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--operator", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="default: all of them")
    parser.add_argument("--batch", nargs="+", type=int, default=[1], metavar="N", help="images at once (default: 1)")
    parser.add_argument("--seconds", type=float, default=5, help="for all rounds of one table (default: 5)")
    parser.add_argument("--compile", action="store_true", help="also torch.compile of the others; takes minutes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw a roofline to FILE (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    """Measures every operator at every stage and batch size."""
    device, dtype = machine.prepare(arguments), machine.DTYPES[arguments.dtype]
    described = machine.describe(device) | {"dtype": arguments.dtype}
    report = Report(
        "Operators of sa_layers", described, COLUMNS, ["operator", "shape", "task"], tuple(notes(device, dtype))
    )
    for name in arguments.operator:
        for batch in arguments.batch:
            for stage in STAGES[-1:] if arguments.quick else STAGES:
                problem = PROBLEMS[name](stage, batch, dtype, device)
                if arguments.compile:
                    add_compiled(problem)
                report.rows += measure(problem, device, seconds=0 if arguments.quick else arguments.seconds)
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    if arguments.plot:
        plot(arguments.plot, report, fastest_product(dtype, device))
    return 0


def notes(device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    """What to read the tables by, and what is missing from them."""
    yield f"ratio: to the time of {OURS}, the median of the rounds."
    if device.type == "cuda":
        yield "peak memory: of torch's allocator, beyond the operands."
    else:
        yield "peak memory: of torch's tensors beyond the operands, by torch's profiler; NumPy's arrays are not seen."
    yield "of copy: the time of copying as many bytes as must be read and written at least, as a share of the median."
    yield from precision_notes(device)
    if obstacle := why_not("native", device):
        yield f"{OURS} computes with plain torch here: {obstacle}."
    if obstacle := why_not("reference", device):
        yield f"{REFERENCE} is missing: {obstacle}."
    if device.type == "cuda" and (obstacle := one_thread_per_output.why_not(dtype)):
        yield f"one thread per output, the order of the authors' kernels, is missing: {obstacle}."


def add_compiled(problem: Problem) -> None:
    """Adds torch.compile of what others write."""
    torch.compiler.reset()  # or the shapes met so far count against the limit of recompilations
    for name, operator in list(problem.candidates.items()):
        if name.startswith(("unfold", "shift")):
            problem.candidates[f"compiled: {name}"] = torch.compile(operator, dynamic=False)


def measure(problem: Problem, device: torch.device, *, seconds: float) -> Iterator[Row]:
    """A row for every task and implementation; refuses to time what computes something else."""
    first, second = problem.operands
    output = next(iter(problem.candidates.values()))(first, second, problem.footprint)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output)
    differentiable = tuple(operand.detach().requires_grad_() for operand in problem.operands)
    candidates, needed = problem.candidates, 5 * problem.unfolded_bytes
    if needed > machine.available_memory(device) // 2:
        print(f"{problem.operator}, {problem.shape}: without unfold, which would take about {size(needed)}")
        candidates = {name: operator for name, operator in candidates.items() if "unfold" not in name}
    operand_bytes = first.nbytes + second.nbytes
    forward_bytes = operand_bytes + output.nbytes
    both_bytes = 2 * forward_bytes + (operand_bytes if problem.reads_operands_again else 0)
    yield from measure_task(
        problem,
        "forward",
        {name: partial(operator, first, second, problem.footprint) for name, operator in candidates.items()},
        (problem.flops, forward_bytes),
        device,
        seconds=seconds,
    )
    yield from measure_task(
        problem,
        "forward and backward",
        {
            name: partial(_forward_and_backward, operator, differentiable, gradient, problem.footprint)
            for name, operator in candidates.items()
        },
        (3 * problem.flops, both_bytes),
        device,
        seconds=seconds,
    )


def measure_task(
    problem: Problem, task: str, calls: dict[str, Run], cost: tuple[int, int], device: torch.device, *, seconds: float
) -> Iterator[Row]:
    """A row for every implementation of one task, which costs (FLOPs, bytes) at least."""
    flops, least_bytes = cost
    check_equal(calls, problem)
    memory = {name: peak_memory(call, device) for name, call in calls.items() if name != REFERENCE}
    everything = {**calls, "copy": copying(least_bytes, device)}
    timings = time_in_turn(everything, device, seconds=seconds, least=5 if seconds else 2)
    copy = timings.pop("copy")
    for name, timing in timings.items():
        yield {
            "operator": problem.operator,
            "shape": problem.shape,
            "task": task,
            "implementation": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.turns,
            "ratio": timing.ratio_to(timings[OURS]),
            "peak_bytes": memory.get(name),
            "flops": flops,
            "flops_per_s": flops / timing.median,
            "least_bytes": least_bytes,
            "copy_median_s": copy.median,
            "share_of_copy": copy.median / timing.median,
        }


def check_equal(calls: dict[str, Run], problem: Problem) -> None:
    """Compares every result with ours.

    Raises:
        SystemExit: Two implementations do not compute the same.
    """
    with without_tf32():
        expected = _tensors(calls[OURS]())
        for name, call in calls.items():
            for result, wanted in zip(_tensors(call()), expected, strict=True):
                check_agreement(f"{problem.operator}, {problem.shape}: {name}", result, OURS, wanted)


def plot(path: Path, report: Report, peak: float) -> None:
    """The roofline of all rows, under the fastest copy of the run."""
    points = [
        Point(row["implementation"], row["task"], row["flops"] / row["least_bytes"], row["flops_per_s"])
        for row in report.rows
    ]
    bandwidth = max(row["least_bytes"] / row["copy_median_s"] for row in report.rows)
    title = f"{report.title}, {report.machine['device']}, {report.machine['dtype']}"
    plot_roofline(path, title, points, bandwidth, peak)


def _forward_and_backward(
    operator: Operator, operands: tuple[Tensor, ...], gradient: Tensor, footprint: Footprint
) -> tuple[Tensor, ...]:
    first, second = operands
    return torch.autograd.grad(operator(first, second, footprint), operands, gradient)


def _tensors(result: object) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)  # type: ignore[arg-type]
