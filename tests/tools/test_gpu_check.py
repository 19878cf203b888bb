"""``make gpu-check`` where there is no GPU, and the program that it hands to compute-sanitizer."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sa_layers.ops import extension


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.skipif(shutil.which("make") is None, reason="no make is here")
def test_without_a_gpu_one_sentence(repository: Path) -> None:
    command = ["make", "--no-print-directory", "gpu-check", f"PYTHON={sys.executable}"]
    process = subprocess.run(command, cwd=repository, text=True, capture_output=True, check=False)
    assert process.returncode
    sentence, *rest = process.stderr.splitlines()
    assert sentence.startswith("gpu-check needs an NVIDIA GPU and a torch that finds it: torch ")
    assert all(re.match(r"make(\[\d+\])?: \*\*\*", line) for line in rest)  # numbered under `make test`
    assert not process.stdout


def test_what_it_writes(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of each step, whether or not the others fail."""
    specification = importlib.util.spec_from_file_location("gpu_check", repository / "tools" / "gpu_check.py")
    gpu_check = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(gpu_check)

    def steps(folder: Path) -> Iterator:
        yield gpu_check.run("good", [sys.executable, "-c", "print('== 3 passed ==')"], folder, gpu_check.last_line)
        yield gpu_check.run("bad", [sys.executable, "-c", "raise SystemExit('no kernel')"], folder, gpu_check.last_line)
        yield from gpu_check.missing("absent", "pytest", "no_such_module")

    monkeypatch.setattr(gpu_check, "STEPS", {"steps": steps})
    monkeypatch.setattr(gpu_check, "why_no_gpu", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA GPU/1")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--output", str(tmp_path / "results")])
    assert gpu_check.main() == 1
    content = json.loads((tmp_path / "results" / "gpu_check.json").read_text())
    assert content["machine"]["gpu"] == "NVIDIA GPU/1"
    assert [(step["step"], step["passed"], step["summary"]) for step in content["steps"]] == [
        ("good", True, "3 passed"),
        ("bad", False, "no kernel"),
        ("absent", None, "no_such_module is not installed"),
    ]
    table = (tmp_path / "results" / "gpu_check.md").read_text().splitlines()
    assert "| absent | not run | 0 s | no_such_module is not installed |" in table
    assert (tmp_path / "results" / "bad.log").read_text() == "no kernel\n"


def test_an_unknown_step(run_python: Callable, repository: Path) -> None:
    process = run_python(None, repository / "tools" / "gpu_check.py", "tests", check=False)
    assert process.returncode
    assert "STEP must be one of build, test, sanitize, benchmark, got 'tests'" in process.stdout


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
def test_every_kernel_runs(run_python: Callable, repository: Path) -> None:
    assert run_python(None, "-m", "tools.run_kernels", "cpu", cwd=repository).stdout.endswith("every kernel ran\n")
