"""Random problems with every instruction set; what the fuzzer finds, and how it says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sa_layers import ops
from sa_layers.ops import extension
from tests.fuzz import problem, workers
from tests.fuzz.__main__ import main

pytestmark = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))


@pytest.mark.slow
def test_random_problems(repository: Path) -> None:
    """For a few seconds with each instruction set; CI's nightly run tries them for an hour."""
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.3", "--seed", "0", "--jobs", "1"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


@pytest.fixture
def wrong_aggregation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of every aggregation is off by a thousandth of the largest."""
    right = ops.aggregation

    def wrong(*args, **kwargs) -> torch.Tensor:
        output = right(*args, **kwargs)
        change = torch.zeros_like(output)
        change.view(-1)[-1:] = output.detach().abs().max() / 1000 if output.numel() else 0
        return output + change

    monkeypatch.setattr(ops, "aggregation", wrong)


def solve_some(count: int = 60) -> dict[int, list[str]]:
    threads = torch.get_num_threads()
    try:
        return {seed: texts for seed in range(count) for _, texts in [problem.solve(seed)] if texts}
    finally:
        torch.set_num_threads(threads)


def test_a_single_wrong_number_is_found(wrong_aggregation: None) -> None:
    wrong = solve_some()
    assert wrong
    assert all("times what rounding explains" in texts[0] for texts in wrong.values())
    assert solve_some() == wrong


def test_a_failure_is_shown_with_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = workers.Report(workers.Counter({"projection": 3}), [workers.Failure(12, "projection", "output is 1")])
    monkeypatch.setattr("tests.fuzz.__main__.run", lambda *args, **variables: report)
    assert main(["--minutes", "0.01", "--seed", "10", "--capability", "avx2"]) == 1
    shown = capsys.readouterr().out
    assert "avx2: 3 problems (3 projection), 1 wrong" in shown
    assert "projection: python -m tests.fuzz --problem 12 --capability avx2\noutput is 1\n" in shown


def test_a_problem_that_ends_its_process_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("""if True:
        import json, os, sys
        seed = int(sys.argv[2])
        print(json.dumps({"begin": seed}), flush=True)
        print("ERROR: a report")
        sys.stdout.flush()
        os.abort()
    """)
    start = subprocess.Popen
    monkeypatch.setattr(
        workers.subprocess, "Popen", lambda command, **options: start([command[0], worker, *command[3:]], **options)
    )
    report = workers.run("default", 7, 0)
    assert [(failure.seed, failure.operator) for failure in report.failures] == [(7, "?")]
    assert "ERROR: a report" in report.failures[0].text
