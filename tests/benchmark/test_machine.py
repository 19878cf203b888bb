"""Selection of the benchmark's device, with CUDA mocked."""

from __future__ import annotations

import argparse

import pytest
import torch

from sa_layers.benchmark import machine


@pytest.mark.parametrize(("device", "expected"), [("cuda", []), ("cuda:1", [1]), ("cpu", [])])
def test_set_device_only_with_an_index(device: str, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.set_device rejects 'cuda' without an index."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)  # behind torch's own check
    assert machine.prepare(argparse.Namespace(device=device, threads=None)) == torch.device(device)
    assert chosen == expected
