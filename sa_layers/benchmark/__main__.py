"""The command line, ``python -m sa_layers.benchmark SUBCOMMAND``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from . import attentions, calls, configs, machine, networks, operators, report

SUBCOMMANDS: dict[str, ModuleType] = {
    "operators": operators,
    "attentions": attentions,
    "networks": networks,
    "calls": calls,
    "configs": configs,
}


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
    return parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())
