"""What a terminal or a log shows while runs are worked on."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .workers import Event


class Display:
    """Bars for the runs that are worked on in a terminal, elsewhere a line for each part that is done.

    Args:
        total: Number of runs.
        finished: How many of them are finished.
        console: Where to write. Defaults to standard output.
    """

    def __init__(self, total: int, finished: int, console: Console | None = None) -> None:
        self.console = console or Console()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._all = self._bars.add_task("runs", total=total, completed=finished)
        self._jobs: dict[int, TaskID] = {}

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.job not in self._jobs:
            self._jobs[event.job] = self._bars.add_task("", total=100)
        shown = f"{event.title}: {event.detail}"
        self._bars.update(self._jobs[event.job], description=shown, completed=round(100 * event.share))
        if event.kind == "finished":
            self._bars.advance(self._all)
        if event.kind in ("finished", "left") or (event.kind == "part" and not self.console.is_terminal):
            left = "the budget is used up " if event.kind == "left" else ""
            self.console.print(
                f"{datetime.now():%H:%M:%S} {event.title}: {left}{event.detail}", highlight=False, soft_wrap=True
            )
