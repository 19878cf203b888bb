"""The device of a benchmark, on a machine that need not have it."""

from __future__ import annotations

import argparse

import pytest
import torch

from sa_layers.benchmark import machine


@pytest.mark.parametrize(("device", "expected"), [("cuda", []), ("cuda:1", [1]), ("cpu", [])])
def test_only_a_numbered_gpu_is_made_the_current_one(
    device: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch refuses 'cuda' in set_device."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch._C, "_cuda_setDevice", chosen.append, raising=False)  # behind torch's own check
    assert machine.prepare(argparse.Namespace(device=device, threads=None)) == torch.device(device)
    assert chosen == expected
