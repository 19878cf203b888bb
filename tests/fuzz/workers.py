"""Processes that solve problems: one for each instruction set, which the kernels choose once a process.

``python -m tests.fuzz.workers CAPABILITY SEED SECONDS`` prints a line of JSON for every problem that it begins and for
every wrong one, so that the parent knows which problem ended the process. It solves the problem of SEED, and the next
ones until SECONDS have passed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

CAPABILITIES = ("default", "avx2", "avx512")
REPOSITORY = Path(__file__).resolve().parents[2]
MAX_FAILURES = 5


class Failure(NamedTuple):
    """A problem that was solved wrongly, or that ended the process."""

    seed: int
    operator: str
    text: str


class Report(NamedTuple):
    """What a capability's processes did."""

    problems: Counter[str]
    failures: list[Failure]
    lacking: str = ""
    """The processor's best capability if it lacks the one that was asked for."""


def run(capability: str, seed: int, seconds: float, folder: Path = REPOSITORY, **environment: str) -> Report:
    """Solves problems for some seconds, in a new process after each one that a problem ended.

    Args:
        capability: The instruction set.
        seed: The first problem's; the next ones have the next integers.
        seconds: For how long. With 0, only the first problem.
        folder: Where sa_layers is imported from.
        environment: More variables of the processes.
    """
    end, problems, failures = time.monotonic() + seconds, Counter[str](), list[Failure]()
    variables = os.environ | {"SA_LAYERS_CPU_CAPABILITY": capability, "PYTHONPATH": str(REPOSITORY)} | environment
    while len(failures) < MAX_FAILURES:
        left = max(0.0, end - time.monotonic())
        command = [sys.executable, "-m", __name__, capability, str(seed), str(left)]
        process = subprocess.Popen(
            command, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        current, lines = seed, deque[str](maxlen=1000)
        for line in process.stdout or ():
            message = parse(line)
            if message is None:
                lines.append(line)
            elif "lacking" in message:
                process.wait()
                return Report(problems, failures, message["lacking"])
            elif "wrong" in message:
                failures.append(Failure(**message["wrong"]))
            elif "solved" in message:
                problems[message["solved"]] += 1
            else:
                current = message["begin"]
        if process.wait() == 0:
            break
        text = f"the process ended with exit code {process.returncode}\n{excerpt(lines)}"
        failures.append(Failure(current, "?", text))
        seed = current + 1
        if time.monotonic() >= end:
            break
    return Report(problems, failures)


def parse(line: str) -> dict[str, Any] | None:
    """A message of a worker, or None for what else it prints."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def excerpt(lines: Iterable[str]) -> str:
    """The beginning of a sanitizer's report, or the end of anything else."""
    text = list(lines)
    starts = [number for number, line in enumerate(text) if "ERROR: " in line or "runtime error: " in line]
    return "".join(text[starts[0] :][:25] if starts else text[-25:])


def main(capability: str, seed: str, seconds: str) -> None:
    """Solves problems in this process."""
    import torch

    from sa_layers.ops import extension

    from .problem import solve

    end = time.monotonic() + float(seconds)
    assert extension.is_available(), extension.why_not()
    if (best := torch.ops.sa_layers.cpu_capability()) != capability:
        return say(lacking=best)
    torch.use_deterministic_algorithms(True)  # torch then fills new tensors with NaN
    wrong, number = 0, int(seed)
    while True:
        say(begin=number)
        operator = "?"
        try:
            operator, texts = solve(number)
        except Exception:
            texts = [traceback.format_exc()]
        say(solved=operator)
        if texts:
            say(wrong={"seed": number, "operator": operator, "text": "\n".join(texts)})
            wrong += 1
        number += 1
        if time.monotonic() >= end or wrong >= MAX_FAILURES:
            return None


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
