"""What a terminal or a log shows while runs are worked on."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Protocol

from .workers import Event


class Display(AbstractContextManager["Display"], Protocol):
    """A display of what happens to the runs."""

    def __call__(self, event: Event) -> None:
        """Show an event."""


def make_display(total: int, finished: int) -> Display:
    """Make the display of a suite: bars in a terminal, elsewhere a line for each part that is done.

    Args:
        total: Number of runs.
        finished: How many of them are finished.
    """
    return Bars(total, finished) if sys.stdout.isatty() else Lines()


def describe(event: Event) -> str:
    """Describe an event in a line.

    >>> describe(Event("finished", "SAN10 pairwise, seed 0", "accuracy 70.1 %"))[9:]
    'SAN10 pairwise, seed 0: accuracy 70.1 %'
    """
    left = "the budget is used up " if event.kind == "left" else ""
    return f"{datetime.now():%H:%M:%S} {event.title}: {left}{event.detail}"


class Lines:
    """A printer of a line for every event except steps."""

    def __enter__(self) -> Lines:
        """Do nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing."""

    def __call__(self, event: Event) -> None:
        """Print an event."""
        if event.kind != "step":
            print(describe(event), flush=True)


class Bars:
    """A bar for all runs and one for each process, below a line for each run that is finished or left.

    Args:
        total: Number of runs.
        finished: How many of them are finished.
    """

    def __init__(self, total: int, finished: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

        self._bars = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._all = self._bars.add_task("runs", total=total, completed=finished)
        self._jobs: dict[int, TaskID] = {}

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop updating the bars."""
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.job not in self._jobs:
            self._jobs[event.job] = self._bars.add_task("", total=100)
        percent = round(100 * event.share)
        self._bars.update(self._jobs[event.job], description=f"{event.title}: {event.detail}", completed=percent)
        if event.kind == "finished":
            self._bars.advance(self._all)
        if event.kind in ("finished", "left"):
            self._bars.console.print(describe(event), highlight=False)
