"""The command line, ``python -m sa_layers.benchmark SUBCOMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from ..command_line import command
from ..output_file import check_output
from . import attentions, calls, configs, deployments, layers, machine, networks, operators, report
from .plot import check_plot

SUBCOMMANDS: dict[str, ModuleType] = {
    "operators": operators,
    "layers": layers,
    "attentions": attentions,
    "networks": networks,
    "deployments": deployments,
    "calls": calls,
    "configs": configs,
}


@command("benchmark")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.benchmark", description="Measure the speed and memory of sa_layers on this machine."
    )
    subparsers = parser.add_subparsers(required=True, metavar="SUBCOMMAND")
    for name, module in SUBCOMMANDS.items():
        summary = str(module.__doc__).partition("\n")[0]
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(subparser)
        machine.add_arguments(subparser)
        report.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    if parsed.json is not None:
        check_output(parsed.json, make_folder=True)
    if getattr(parsed, "plot", None) is not None:
        check_plot(parsed.plot)
    return parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
