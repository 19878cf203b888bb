"""Processes that work on the runs of a suite, in its order, each on one run at a time.

A process claims a run by locking a file, which the operating system unlocks when the process ends, however it ends. So
any number of processes, started together or one by one, share a suite, and each continues what others left unfinished.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sa_layers.command_line import describe
from sa_layers.output_file import make_parent

from .budget import Budget
from .errors import ExperimentError
from .imagenette import ImageFolder
from .ledger import Ledger
from .plan import Run, find, unfinished
from .run import RunInProgress
from .views import Views

WAIT = 1.0  # seconds between two looks for a run that is ready


class Event(NamedTuple):
    """What happened to a run."""

    kind: str
    """'step' of a training, 'part' that is done, 'finished', or 'left' when the budget was used up."""
    title: str
    detail: str = ""
    share: float = 0.0
    """Of the epochs that are done, from 0 to 1."""
    job: int = 0


@dataclass(frozen=True)
class Job:
    """What processes work on, and how."""

    runs: Sequence[Run]
    ledger: Path
    data: Path
    complete: bool
    out: Path
    device: str
    threads: int
    minutes: float | None = None


def work(job: Job, report: Callable[[Event], None], parent: int | None = None) -> None:
    """Work on runs until all are finished or the budget is used up.

    Args:
        job: What to work on.
        report: Is told what happens.
        parent: Process whose end also ends this one. Defaults to None.
    """
    torch.set_num_threads(job.threads)
    torch.backends.cudnn.deterministic = True
    budget, device, ledger = Budget(job.minutes), torch.device(job.device), Ledger(job.ledger)
    views = Views(ImageFolder(job.data, job.runs[0].recipe.source_size, job.complete), device)
    while (remaining := list(unfinished(job.runs, ledger.read(), views.fingerprint))) and budget.allows("epoch"):
        for run in remaining:
            if run.learning_rate is None:
                continue  # the runs that choose it are not finished
            with _claimed(job.out / "locks" / run.key(views.fingerprint)) as claimed:
                # The ledger is read again, since another process may just have finished the run.
                if claimed and find(run, ledger.read(), views.fingerprint) is None:
                    _execute(RunInProgress(run, views, job.out, device), ledger, budget, report, parent)
                    break
        else:  # others work on all that can be done now
            _end_with(parent)
            time.sleep(WAIT)


def _execute(
    progress: RunInProgress, ledger: Ledger, budget: Budget, report: Callable[[Event], None], parent: int | None
) -> None:
    """Do the parts of a run that the budget allows, and write it to the ledger if these were all."""
    run, training = progress.run, progress.training
    steps = run.epochs * training.steps_per_epoch
    done = len(training.losses) * training.steps_per_epoch

    def on_step() -> None:
        nonlocal done
        done += 1
        _end_with(parent)
        report(Event("step", run.title, f"epoch {len(training.losses) + 1} of {run.epochs}", done / steps))

    progress.on_step = on_step
    for part in progress.parts():
        if not budget.allows(part.kind):
            report(Event("left", run.title, f"before {part.title}", done / steps))
            return
        _end_with(parent)
        begin = time.monotonic()
        part.do()
        seconds = time.monotonic() - begin
        budget.note(part.kind, seconds)
        loss = f", loss {training.losses[-1]:.3f}" if part.kind == "epoch" and training.losses[-1] is not None else ""
        report(Event("part", run.title, f"{part.title}{loss}, {seconds:.0f} s", done / steps))
    record = progress.record()
    ledger.append(record)
    progress.discard_state()
    correct = record["results"]["correct"]["0"] / record["results"]["images"]
    report(Event("finished", run.title, f"accuracy {100 * correct:.1f} %", 1.0))


@contextlib.contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Lock a file inside the block, unless another process has. Yield whether it is locked."""
    make_parent(path)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _end_with(parent: int | None) -> None:
    """End this process if its parent no longer exists, since a parent that is killed cannot end it."""
    if parent is not None and os.getppid() != parent:
        sys.exit(1)


def work_in_processes(job: Job, jobs: int, report: Callable[[Event], None]) -> None:
    """Start processes that work on runs, and wait for them.

    Args:
        job: What to work on.
        jobs: Number of processes. A single one is this process.
        report: Is told what happens, in this process.

    Raises:
        ExperimentError: A process failed.
    """
    if jobs == 1:
        work(job, report)
        return
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    processes = [
        context.Process(target=_work_for_parent, args=(job, index, events, os.getpid()), daemon=True)
        for index in range(jobs)
    ]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes) or not events.empty():
            with contextlib.suppress(queue.Empty):
                event = events.get(timeout=0.5)
                if isinstance(event, str):
                    raise ExperimentError(event)
                report(event)
        if any(process.exitcode for process in processes):
            raise ExperimentError("a process has died; the same command continues from the last epochs")
    finally:
        for process in processes:
            process.terminate()


def _work_for_parent(job: Job, index: int, events: Any, parent: int) -> None:
    try:
        work(job, lambda event: events.put(event._replace(job=index)), parent)
    except Exception as error:
        events.put(describe(error) or f"{type(error).__name__}: {error}")
        raise
