"""Selection of the benchmark's device, with CUDA mocked."""

from __future__ import annotations

import argparse

import pytest
import torch

from sa_layers.benchmark import machine
from sa_layers.benchmark.errors import BenchmarkError


@pytest.mark.parametrize(("device", "expected"), [("cuda", []), ("cuda:1", [1]), ("cpu", [])])
def test_set_device_only_with_an_index(device: str, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.set_device rejects 'cuda' without an index."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)  # behind torch's own check
    given = torch.device(device)
    assert machine.prepare(argparse.Namespace(device=given, threads=None)) == given
    assert chosen == expected


@pytest.mark.parametrize(("count", "found"), [(0, "no GPU"), (1, "one GPU"), (3, "3 GPUs")])
def test_missing_gpu(count: int, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(BenchmarkError, match=f"^--device cuda:3 is not available: torch finds {found} on"):
        machine.prepare(argparse.Namespace(device=torch.device("cuda:3"), threads=None))
