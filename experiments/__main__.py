"""Train networks on Imagenette, CamVid and BCCD, test them, also on rotated and attacked images, and write the page."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sa_layers.benchmark.machine import check_device, parse_device
from sa_layers.command_line import command, integer, number
from sa_layers.output_file import output_file

from .display import make_display
from .drawn_images import draw_folder
from .errors import ExperimentError
from .imagenette import ImageFolder
from .kept_weights import KeptWeights, find_best, find_kept
from .ledger import Ledger
from .networks import NETWORKS
from .plan import Run, list_runs, unfinished
from .recipes import SUITES, Suite
from .tasks import NETWORKS as TASK_NETWORKS
from .tasks import TASKS
from .views import Views
from .workers import Job, work_in_processes

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "benchmarks" / "results" / "evidence" / "runs.jsonl"
PAGE = ROOT / "docs" / "evidence.md"
METAFILE = ROOT / "mm_configs" / "classification" / "imagenette.yml"
DATA, OUT = ROOT / "data", ROOT / "work_dirs" / "evidence"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="do the runs of a suite that are not in the ledger yet")
    _add_suite(run_parser)
    run_parser.add_argument("--data", type=Path, metavar="DIR", help=f"Imagenette's folder (default: {DATA})")
    run_parser.add_argument(
        "--minutes", type=number(0), metavar="M", help="do what fits into M minutes, and say what is left"
    )
    run_parser.add_argument("--jobs", type=integer(1, 64), metavar="N", help="processes (default: 2, on a GPU 1)")
    run_parser.add_argument(
        "--threads", type=integer(1, 1024), metavar="N", help="threads of each process (default: cores / processes)"
    )
    run_parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help=f"work files and weights (default: {OUT})"
    )
    _add_ledger(run_parser)
    attack_parser = commands.add_parser("attack", help="attack the weights of finished runs by APGD and Square")
    _add_kept(attack_parser)
    attention_parser = commands.add_parser(
        "attention", help="compare attention at edges and in flat regions before and after training, by saved weights"
    )
    _add_kept(attention_parser)
    estimate_parser = commands.add_parser("estimate", help="estimate the time of a suite from a few steps")
    _add_suite(estimate_parser)
    time_parser = commands.add_parser("time", help="time the networks of a suite, and write the times to the ledger")
    _add_suite(time_parser)
    time_parser.add_argument("--seconds", type=number(0), default=20, metavar="S", help="for each batch (default: 20)")
    time_parser.add_argument("--threads", type=integer(1, 1024), metavar="N", help="threads (default: torch's)")
    _add_ledger(time_parser)
    tasks_parser = commands.add_parser("tasks", help="train and test on CamVid and BCCD with mmseg's and mmdet's tools")
    _add_tasks(tasks_parser)
    _add_ledger(tasks_parser)
    page_parser = commands.add_parser("page", help="make docs/evidence.md and a metafile of weights from the ledger")
    page_parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help=f"the page (default: {PAGE})")
    page_parser.add_argument(
        "--metafile", type=Path, default=METAFILE, metavar="FILE", help=f"the metafile (default: {METAFILE})"
    )
    _add_ledger(page_parser)
    return parser


def _add_kept(parser: argparse.ArgumentParser) -> None:
    _add_suite(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"Imagenette's folder (default: {DATA})")
    parser.add_argument("--threads", type=integer(1, 1024), metavar="N", help="threads (default: torch's)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"where the weights are (default: {OUT})")
    _add_ledger(parser)


def _add_suite(parser: argparse.ArgumentParser) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--suite", choices=SUITES, help="what to run (default: gpu on a GPU, otherwise two-core)")
    parser.add_argument(
        "--quick",
        dest="suite",
        action="store_const",
        const="quick",
        help="the suite quick: a few steps of everything, on drawn images unless --data is given",
    )
    parser.add_argument("--ablations", action="store_true", help="also the suite's ablations, at the end")
    parser.add_argument("--seeds", type=integer(1), metavar="N", help="number of seeds (default: the suite's)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, metavar="NAME", help="some of the suite's networks")
    parser.add_argument(
        "--device",
        type=parse_device,
        default=device,
        help=f"cpu, cuda or cuda:N (default on this machine: {device})",
    )


def _add_ledger(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ledger", type=Path, default=LEDGER, metavar="FILE", help=f"the ledger (default: {LEDGER})")


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), help="some of the tasks")
    parser.add_argument("--seeds", type=integer(1), default=1, metavar="N", help="number of seeds (default: 1)")
    parser.add_argument(
        "--data", type=Path, default=DATA, metavar="DIR", help=f"folder of camvid/ and bccd/ (default: {DATA})"
    )
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help="start from the most accurate weights that run has saved for each network, not from random weights",
    )
    parser.add_argument("--threads", type=integer(1, 1024), metavar="N", help="threads (default: all cores)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"work files and weights (default: {OUT})")


def _suite(arguments: argparse.Namespace) -> Suite:
    return SUITES[arguments.suite or ("gpu" if arguments.device.type == "cuda" else "two-core")]


def _runs(arguments: argparse.Namespace) -> list[Run]:
    runs = list_runs(_suite(arguments), arguments.ablations, arguments.seeds, arguments.networks)
    if not runs:
        raise ExperimentError(f"the suite {_suite(arguments).name} has none of the networks of --networks")
    return runs


def run(arguments: argparse.Namespace) -> int:
    """Do the runs that are not in the ledger."""
    suite, gpu, cores = _suite(arguments), arguments.device.type == "cuda", len(os.sched_getaffinity(0))
    runs, ledger = _runs(arguments), Ledger(arguments.ledger)
    jobs = arguments.jobs or (1 if gpu else min(2, cores))
    is_quick = suite is SUITES["quick"]
    data = arguments.data or (arguments.out / "drawn" if is_quick else DATA)
    if is_quick and arguments.data is None:
        draw_folder(data, per_class=6)
    job = Job(
        runs=runs,
        ledger=arguments.ledger,
        data=data,
        complete=not is_quick,
        out=arguments.out,
        device=str(arguments.device),
        threads=arguments.threads or max(1, cores // jobs),
        minutes=arguments.minutes,
    )
    fingerprint = ImageFolder(data, runs[0].recipe.source_size, job.complete).fingerprint
    finished = len(runs) - len(list(unfinished(runs, ledger.read(), fingerprint)))
    print(f"suite {suite.name}: {finished} of {len(runs)} runs are in {arguments.ledger}", flush=True)
    with make_display(len(runs), finished) as display:
        work_in_processes(job, jobs, display)
    if left := list(unfinished(runs, ledger.read(), fingerprint)):
        print(f"left for the next time, {len(left)} of {len(runs)}: {'; '.join(each.title for each in left)}")
    return 0


def estimate(arguments: argparse.Namespace) -> int:
    """Print how long the runs of a suite take."""
    from .estimate import print_estimate

    runs = _runs(arguments)
    print_estimate(runs, arguments.device)
    return 0


def time(arguments: argparse.Namespace) -> int:
    """Time the networks and write the times to the ledger."""
    from .timing import measure_times

    runs, ledger = _runs(arguments), Ledger(arguments.ledger)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    names = list(dict.fromkeys(run.network for run in runs))
    for record in measure_times(runs[0].recipe, names, arguments.device, arguments.seconds):
        ledger.append(record)
        shown = f"batch of {record['batch']}: {record['measured']['ms_per_image']:.3g} ms an image"
        print(f"{NETWORKS[record['network']].title}, {shown}")
    return 0


def _kept(arguments: argparse.Namespace) -> tuple[list[KeptWeights], Views, Ledger]:
    """Return the weights of the suite's finished runs, the images on which these were tested, and the ledger."""
    runs, ledger = _runs(arguments), Ledger(arguments.ledger)
    is_quick = _suite(arguments) is SUITES["quick"]
    data = arguments.data or (arguments.out / "drawn" if is_quick else DATA)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    views = Views(ImageFolder(data, runs[0].recipe.source_size, complete=not is_quick), arguments.device)
    return find_kept(runs, ledger.read(), views.fingerprint, arguments.out), views, ledger


def attack(arguments: argparse.Namespace) -> int:
    """Attack the weights of finished runs and write the results to the ledger."""
    from .autoattack import attack_kept

    attack_kept(*_kept(arguments), arguments.device)
    return 0


def attention(arguments: argparse.Namespace) -> int:
    """Compare attention before and after training, and write the results to the ledger."""
    from .attention import measure_kept

    measure_kept(*_kept(arguments))
    return 0


def tasks(arguments: argparse.Namespace) -> int:
    """Do the runs of the tasks that are not in the ledger."""
    from .task_run import TaskRun, do_runs

    ledger, networks = Ledger(arguments.ledger), TASK_NETWORKS
    starts: dict[str, Path | None] = dict.fromkeys(networks)
    if arguments.pretrained:
        starts = {network: find_best(network, ledger.read(), arguments.out) for network in networks}
    runs = [
        TaskRun(task, network, seed, arguments.data / task, weights=starts[network])
        for seed in range(arguments.seeds)
        for task in arguments.only
        for network in networks
    ]
    threads = arguments.threads or len(os.sched_getaffinity(0))
    do_runs(runs, ledger, arguments.out / "tasks", threads)
    return 0


def page(arguments: argparse.Namespace) -> int:
    """Make the page and the metafile from the ledger."""
    from .metafile import make_metafile
    from .page import make_page, write

    records = Ledger(arguments.ledger).read()
    write(make_page(records), arguments.page)
    with output_file(arguments.metafile) as partial:
        partial.write_text(make_metafile(records))
    return 0


COMMANDS = {
    "run": run,
    "attack": attack,
    "attention": attention,
    "estimate": estimate,
    "time": time,
    "tasks": tasks,
    "page": page,
}


@command("experiments")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    # SIGTERM also ends the processes that were started, as an interruption from the keyboard does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parsed = make_parser().parse_args(arguments)
    if "device" in parsed:
        check_device(parsed.device)
    return COMMANDS[parsed.command](parsed)


if __name__ == "__main__":
    sys.exit(main())
