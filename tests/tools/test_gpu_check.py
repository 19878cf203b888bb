"""``make gpu-check`` where there is no GPU, and the program that it hands to compute-sanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
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
    assert all(line.startswith("make: ***") for line in rest)
    assert not process.stdout


def test_an_unknown_step(run_python: Callable, repository: Path) -> None:
    process = run_python(None, repository / "tools" / "gpu_check.py", "tests", check=False)
    assert process.returncode
    assert "STEP must be one of build, test, sanitize, benchmark, got 'tests'" in process.stdout


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
def test_every_kernel_runs(run_python: Callable, repository: Path) -> None:
    assert run_python(None, "-m", "tools.run_kernels", "cpu", cwd=repository).stdout.endswith("every kernel ran\n")
