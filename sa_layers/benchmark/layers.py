"""Time the aggregation layers of other papers against sums over unfolded neighbours.

Involution, CARAFE, RAFT's convex upsampling, neighborhood attention and outlook attention, without their linear layers:
the forward pass alone, and with the backward pass. The results are compared first, and their errors are shown: the
largest difference from the sums over unfolded neighbours in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..command_line import number
from . import machine
from .agreement import without_tf32
from .layer_problems import LAYERS, UNFOLD
from .operators import COLUMNS, measure, notes
from .problems import Operator, Problem
from .report import Column, Report, Row

ERROR = Column("error", "error", "{:.1e}".format)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--layer", nargs="+", choices=LAYERS, default=list(LAYERS), help="layers to time (default: all)"
    )
    parser.add_argument(
        "--seconds", type=number(0), default=5, metavar="S", help="time limit of each table (default: 5)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Time every layer."""
    device, dtype = machine.prepare(arguments), machine.DTYPES[arguments.dtype]
    described = machine.describe(device) | {"dtype": arguments.dtype}
    explained = (
        *notes(device, dtype),
        "error: largest difference from the result in float64, relative to its maximum.",
    )
    report = Report("Layers of aggregation", described, [*COLUMNS, ERROR], ["operator", "shape", "task"], explained)
    torch.manual_seed(0)
    for name in arguments.layer:
        problem = LAYERS[name](dtype, device)
        report.rows += add_errors(
            problem, measure(problem, device, seconds=0 if arguments.quick else arguments.seconds)
        )
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0


def add_errors(problem: Problem, rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows with the error of the output ('forward') or of the output and all gradients."""
    with without_tf32():
        exact = results(problem.candidates[UNFOLD], problem, torch.float64)
        for row in rows:
            found = results(problem.candidates[row["implementation"]], problem, problem.operands[0].dtype)
            wanted = 1 if row["task"] == "forward" else len(exact)
            errors = (
                ((result - expected).abs().max() / expected.abs().max()).item()
                for result, expected in zip(found[:wanted], exact, strict=False)
            )
            yield row | {"error": max(errors)}


def results(operator: Operator, problem: Problem, dtype: torch.dtype) -> list[Tensor]:
    """Return the output of an operator and the gradients of its operands, computed in a dtype, as float64."""
    operands = [operand.detach().to(dtype).requires_grad_() for operand in problem.operands]
    output = operator(operands[0], operands[1], problem.footprint)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output)
    return [item.detach().double() for item in (output, *torch.autograd.grad(output, operands, gradient))]
