"""mmseg's and mmdet's own tools: how they are run, and what they leave behind."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sa_layers.output_file import output_file

from .errors import ExperimentError
from .ledger import Record

SECONDS = "cpu_s.json"


class ToolRunner:
    """A runner of a toolbox's tools, whose progress goes to the terminal and whose output goes to ``<tool>.log``.

    Args:
        toolbox: 'mmseg' or 'mmdet'.
        folder: Folder of the logs.
        title: What to call the run in the terminal.
        options: The tools' ``--cfg-options``.
        threads: Number of threads.
        lock: File that the tools inherit, as :func:`locked` yields it.
    """

    def __init__(
        self, toolbox: str, folder: Path, title: str, options: Mapping[str, Any], threads: int, lock: TextIO
    ) -> None:
        spec = importlib.util.find_spec(toolbox)
        assert spec is not None
        assert spec.origin is not None
        self.tools = Path(spec.origin).parent / ".mim" / "tools"
        self.folder, self.title, self.lock = folder, title, lock
        self.options = [f"{name}={value}" for name, value in options.items()]
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads)}

    def __call__(self, tool: str, arguments: Sequence[str]) -> None:
        """Run a tool.

        Raises:
            ExperimentError: It failed.
        """
        command = [sys.executable, str(self.tools / f"{tool}.py"), *arguments, "--cfg-options", *self.options]
        before, lines = _cpu_seconds(), []
        with (
            (self.folder / f"{tool}.log").open("a") as log,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment,
                pass_fds=[self.lock.fileno()],
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", file=log, flush=True)
                lines.append(line)
                if "Iter(" in line or "Epoch(" in line:
                    print(f"{self.title}: {line.rstrip().split(' - ')[-1]}", flush=True)
        if process.returncode:
            print(*lines[-15:], sep="", file=sys.stderr)
            raise ExperimentError(f"{command[1]} failed with exit code {process.returncode}; see {log.name}")
        spent = read_seconds(self.folder)
        with output_file(self.folder / SECONDS) as partial:
            partial.write_text(json.dumps(spent | {tool: round(spent.get(tool, 0.0) + _cpu_seconds() - before, 1)}))


@contextmanager
def locked(folder: Path) -> Iterator[TextIO]:
    """Lock a folder for this process and the tools that it starts, which outlive this process if it is killed.

    Raises:
        ExperimentError: Another process has locked it.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExperimentError(f"another process works in {folder}") from error
        yield lock


def read_seconds(folder: Path) -> dict[str, float]:
    """Return the CPU time of each tool, without that of runs that were interrupted."""
    path = folder / SECONDS
    return json.loads(path.read_text()) if path.exists() else {}


def read_scores(folder: Path) -> Record:
    """Return the metrics that the last ``tools/test.py --work-dir FOLDER`` wrote, without its times."""
    scores: Record = json.loads(max(folder.glob("*/*.json")).read_text())
    return {name: round(value, 4) for name, value in scores.items() if name not in ("data_time", "time")}


def read_losses(folder: Path) -> list[float]:
    """Return the losses that ``tools/train.py --work-dir FOLDER`` logged, one for each step that it logged.

    A resumed training repeats steps, of which the last count.
    """
    losses: dict[int, float] = {}
    for path in sorted(folder.glob("*/vis_data/scalars.json")):
        records = (json.loads(line) for line in path.read_text().splitlines())
        losses |= {record["step"]: record["loss"] for record in records if "loss" in record}
    return [losses[step] for step in sorted(losses)]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
