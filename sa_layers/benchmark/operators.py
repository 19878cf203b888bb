"""Time the operators at the shapes of SAN19 against other implementations.

The forward pass, and the forward and backward pass: time, peak memory, FLOP/s, and the speed relative to a copy with
the operator's minimum memory traffic.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..command_line import integer, number
from ..ops import Footprint
from ..ops.backend import why_not
from . import machine, one_thread_per_output
from .agreement import check_agreement, precision_notes, without_tf32
from .measure import Run, make_copy, matmul_flops_per_s, time_interleaved
from .memory import peak_memory
from .plot import Point, plot_roofline
from .problems import OURS, PROBLEMS, REFERENCE, STAGES, Operator, Problem
from .report import Column, Report, Row, duration, percentage, rate, ratio, size

COLUMNS = [
    Column("implementation", "implementation"),
    Column("median_s", "median", duration),
    Column("ratio", "ratio", ratio),
    Column("peak_bytes", "peak memory", size),
    Column("flops_per_s", "speed", rate),
    Column("share_of_copy", "of copy", percentage),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--operator", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="operators to time (default: all)"
    )
    parser.add_argument(
        "--batch", nargs="+", type=integer(1, 2**16), default=[1], metavar="N", help="batch sizes (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=number(0), default=5, metavar="S", help="time limit of each table (default: 5)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also time the baselines with torch.compile; takes minutes"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also plot a roofline to FILE (needs matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    """Time every operator at every stage and batch size."""
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
        plot(arguments.plot, report, matmul_flops_per_s(dtype, device))
    return 0


def notes(device: torch.device, dtype: torch.dtype) -> Iterator[str]:
    """Yield explanations of the tables and reasons for missing rows."""
    yield f"ratio: time relative to {OURS}, median of the rounds."
    if device.type == "cuda":
        yield "peak memory: maximum memory allocated by torch during a call, without its operands."
    else:
        yield "peak memory: maximum memory of torch tensors during a call, without its operands and NumPy arrays."
    yield "of copy: time of a copy with the operator's minimum memory traffic, relative to the median."
    yield from precision_notes(device)
    if obstacle := why_not("native", device):
        yield f"{OURS} uses plain torch on this device: {obstacle}."
    if obstacle := why_not("reference", device):
        yield f"{REFERENCE} is missing: {obstacle}."
    if device.type == "cuda" and (obstacle := one_thread_per_output.why_not(dtype)):
        yield f"one thread per output, the algorithm of the official kernels, is missing: {obstacle}."


def add_compiled(problem: Problem) -> None:
    """Add compiled versions of the plain torch baselines."""
    torch.compiler.reset()  # earlier shapes would count towards the recompilation limit
    for name, operator in list(problem.candidates.items()):
        if name.startswith(("unfold", "shift")):
            problem.candidates[f"compiled: {name}"] = torch.compile(operator, dynamic=False)


def measure(problem: Problem, device: torch.device, *, seconds: float) -> Iterator[Row]:
    """Yield a row for every task and implementation, after a check that the results agree."""
    first, second = problem.operands
    output = next(iter(problem.candidates.values()))(first, second, problem.footprint)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output)
    differentiable = tuple(operand.detach().requires_grad_() for operand in problem.operands)
    candidates, unfold_memory = problem.candidates, 5 * problem.unfolded_bytes  # estimate for forward and backward
    if unfold_memory > machine.available_memory(device) // 2:
        print(
            f"{problem.operator}, {problem.shape}: skipping unfold, which needs about {size(unfold_memory)} of memory"
        )
        candidates = {name: operator for name, operator in candidates.items() if "unfold" not in name}
    operand_bytes = first.nbytes + second.nbytes
    forward_bytes = operand_bytes + output.nbytes
    both_bytes = 2 * forward_bytes + (operand_bytes if problem.backward_reads_operands else 0)
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
    """Yield a row for every implementation of one task, given its minimum cost (FLOPs, bytes)."""
    flops, min_bytes = cost
    check_equal(calls, problem)
    memory = {name: peak_memory(call, device) for name, call in calls.items() if name != REFERENCE}
    calls_and_copy = {**calls, "copy": make_copy(min_bytes, device)}
    timings = time_interleaved(calls_and_copy, device, seconds=seconds, min_rounds=5 if seconds else 2)
    copy = timings.pop("copy")
    for name, timing in timings.items():
        yield {
            "operator": problem.operator,
            "shape": problem.shape,
            "task": task,
            "implementation": name,
            "median_s": timing.median,
            "fastest_s": timing.fastest,
            "turns": timing.rounds,
            "ratio": timing.ratio_to(timings[OURS]),
            "peak_bytes": memory.get(name),
            "flops": flops,
            "flops_per_s": flops / timing.median,
            "least_bytes": min_bytes,
            "copy_median_s": copy.median,
            "share_of_copy": copy.median / timing.median,
        }


def check_equal(calls: dict[str, Run], problem: Problem) -> None:
    """Compare the result of every implementation with ours.

    Raises:
        BenchmarkError: If two implementations differ.
    """
    with without_tf32():
        expected = _tensors(calls[OURS]())
        for name, call in calls.items():
            for result, expected_result in zip(_tensors(call()), expected, strict=True):
                check_agreement(f"{problem.operator}, {problem.shape}: {name}", result, OURS, expected_result)


def plot(path: Path, report: Report, peak: float) -> None:
    """Plot the roofline of all rows. The bandwidth is that of the fastest copy."""
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
