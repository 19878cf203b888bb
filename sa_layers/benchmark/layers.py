"""Time the aggregation layers of other papers against sums over unfolded neighbours.

Involution, CARAFE, RAFT's convex upsampling, neighborhood attention and outlook attention, without their linear layers:
the forward pass alone, and with the backward pass. The results are compared first.
"""

from __future__ import annotations

import argparse

import torch

from ..command_line import number
from . import machine
from .layer_problems import LAYERS
from .operators import COLUMNS, measure, notes
from .report import Report


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
    report = Report(
        "Layers of aggregation", described, COLUMNS, ["operator", "shape", "task"], tuple(notes(device, dtype))
    )
    torch.manual_seed(0)
    for name in arguments.layer:
        problem = LAYERS[name](dtype, device)
        report.rows += measure(problem, device, seconds=0 if arguments.quick else arguments.seconds)
    report.print()
    if arguments.json:
        report.write_json(arguments.json)
    return 0
