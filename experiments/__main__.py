"""The command line: ``python -m experiments run``, ``estimate`` and ``page``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sa_layers.command_line import command, integer, number

from .display import Display
from .imagenette import ImageFolder
from .ledger import Ledger
from .plan import list_runs, unfinished
from .recipes import SUITES
from .workers import Job, work_in_processes

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "benchmarks" / "results" / "evidence" / "runs.jsonl"
DATA, OUT = ROOT / "data", ROOT / "work_dirs" / "evidence"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="do the runs of a suite that are not in the ledger yet")
    _add_run_arguments(run_parser)
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    gpu = torch.cuda.is_available()
    parser.add_argument("--suite", choices=SUITES, help="runs to do (default: gpu on a GPU, otherwise two-core)")
    parser.add_argument("--ablations", action="store_true", help="also do the suite's ablations, after all else")
    parser.add_argument("--seeds", type=integer(1), metavar="N", help="number of seeds (default: the suite's)")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help=f"Imagenette's folder (default: {DATA})")
    parser.add_argument("--device", default="cuda" if gpu else "cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--minutes", type=number(0), metavar="M", help="do what fits into M minutes, and say what is left"
    )
    parser.add_argument("--jobs", type=integer(1, 64), metavar="N", help="processes (default: 2, on a GPU 1)")
    parser.add_argument("--threads", type=integer(1, 1024), metavar="N", help="threads of each (default: cores / jobs)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"work files and weights (default: {OUT})")
    parser.add_argument("--ledger", type=Path, default=LEDGER, metavar="FILE", help=f"the ledger (default: {LEDGER})")


def run(arguments: argparse.Namespace) -> int:
    """Do the runs that are not in the ledger."""
    gpu = arguments.device.startswith("cuda")
    suite = SUITES[arguments.suite or ("gpu" if gpu else "two-core")]
    runs, ledger = list_runs(suite, arguments.ablations, arguments.seeds), Ledger(arguments.ledger)
    cores = len(os.sched_getaffinity(0))
    jobs = arguments.jobs or (1 if gpu else min(2, cores))
    complete = suite.name != "quick"
    job = Job(
        runs=runs,
        ledger=arguments.ledger,
        data=arguments.data,
        complete=complete,
        out=arguments.out,
        device=arguments.device,
        threads=arguments.threads or max(1, cores // jobs),
        minutes=arguments.minutes,
    )
    data = ImageFolder(arguments.data, runs[0].recipe.source_size, complete).fingerprint
    finished = len(runs) - len(list(unfinished(runs, ledger.read(), data)))
    print(f"suite {suite.name}: {finished} of {len(runs)} runs are in {arguments.ledger}", flush=True)
    with Display(len(runs), finished) as display:
        work_in_processes(job, jobs, display)
    if left := list(unfinished(runs, ledger.read(), data)):
        print(f"left for the next time: {'; '.join(each.title for each in left)}")
    return 0


@command("experiments")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    # As after an interruption from the keyboard, the processes that were started end, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parsed = make_parser().parse_args(arguments)
    return {"run": run}[parsed.command](parsed)


if __name__ == "__main__":
    sys.exit(main())
