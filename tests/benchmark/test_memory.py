"""Peak memory, of tensors and of the process."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sa_layers.benchmark import memory
from sa_layers.benchmark.memory import peak_memory, peak_resident_memory
from sa_layers.ops import aggregation

CPU = torch.device("cpu")


def test_peak_memory_counts_simultaneous_allocations() -> None:
    megabyte = 1_000_000
    block = torch.zeros(megabyte, dtype=torch.uint8)

    def one_after_the_other() -> None:
        for _ in range(3):
            block.clone()

    def all_at_once() -> list[torch.Tensor]:
        return [block.clone() for _ in range(3)]

    assert peak_memory(one_after_the_other, CPU) == megabyte
    assert peak_memory(all_at_once, CPU) == 3 * megabyte
    assert peak_memory(block.zero_, CPU) == 0


def test_peak_memory_includes_native_operators() -> None:
    value, weight = torch.randn(1, 64, 14, 14), torch.randn(1, 8, 9, 196)
    assert peak_memory(lambda: aggregation(value, weight, 3), CPU) >= value.nbytes


def test_peak_memory_includes_what_is_kept_for_a_backward_pass_and_gradients() -> None:
    weight = torch.ones(250_000, requires_grad=True)
    block = weight.nbytes

    def step() -> None:
        (weight.sigmoid() * torch.ones_like(weight)).sum().backward()
        weight.grad = None

    assert 3 * block <= peak_memory(step, CPU) < 6 * block


def test_resident_memory_includes_what_is_no_tensor() -> None:
    def in_numpy() -> None:
        np.ones(4_000_000)

    found = peak_resident_memory(in_numpy, CPU)
    if found is None:
        pytest.skip("the peak of a process cannot be reset here")
    assert 30_000_000 < found < 60_000_000
    assert peak_memory(in_numpy, CPU) == 0


def test_resident_memory_is_none_where_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "nowhere")
    assert peak_resident_memory(lambda: None, CPU) is None
    assert peak_resident_memory(lambda: None, torch.device("cuda")) is None
