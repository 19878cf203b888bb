"""Replicas as torch.nn.DataParallel makes them: their parameters are plain tensors, attributes of shallow copies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.parallel.replicate
from torch import Tensor, nn

from tests.fused.evaluation import SUBJECTS, answer, check_answer, difference, features_for, subject

Replicate = Callable[..., list[Any]]


@pytest.fixture
def replicate(monkeypatch: pytest.MonkeyPatch) -> Replicate:
    """torch's own function, with copies on the CPU instead of on GPUs."""
    module = sys.modules["torch.nn.parallel.replicate"]

    def copies(tensors: list[Tensor], devices: list[int], detach: bool = False) -> list[list[Tensor]]:
        return [[tensor.detach().clone() if detach else tensor.clone() for tensor in tensors] for _ in devices]

    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", copies)
    monkeypatch.setattr(module, "_get_device_index", lambda device, *_: device)
    return module.replicate


@pytest.mark.parametrize("kind", SUBJECTS)
@pytest.mark.parametrize("evaluated", [False, True])
@torch.no_grad()
def test_values(kind: str, evaluated: bool, replicate: Replicate) -> None:
    """The same, whether the module was evaluated before or not; and again after a change of the module."""
    module, features = subject(kind), features_for(kind)
    if evaluated:
        answer(module, features)
    for _ in range(2):
        expected = answer(module, features, by_modules=True)
        for replica in replicate(module, [0, 1], detach=True):
            results = check_answer(replica, features)
            assert results is not None
            assert max(map(difference, results, expected)) < 1e-4
        for tensor in module.parameters():
            tensor.data.mul_(1.2)


@pytest.mark.parametrize("kind", SUBJECTS)
def test_gradients(kind: str, replicate: Replicate) -> None:
    """They reach the parameters of the module through the plain tensors of the replica."""
    module, features = subject(kind), features_for(kind)
    with torch.no_grad():
        answer(module, features)
    gradients = []
    for part in (module, replicate(module, [0])[0]):
        module.zero_grad()
        outputs = part(features)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        sum(output.square().mean() for output in outputs).backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    for wanted, result in zip(*gradients, strict=True):
        assert (wanted is None) == (result is None)
        if wanted is not None:
            torch.testing.assert_close(result, wanted)


@pytest.mark.parametrize("kind", ["pairwise network", "patchwise block", "pairwise layer"])
def test_threads(kind: str, replicate: Replicate) -> None:
    """Replicas that are evaluated at the same time, each with values of its own, do not disturb each other."""
    module, features = subject(kind), features_for(kind)
    failures: list[str] = []

    def evaluate(replica: nn.Module, expected: Any) -> None:
        with torch.no_grad():
            for _ in range(5):
                error = max(map(difference, answer(replica, features), expected))
                if error > 1e-4:
                    failures.append(f"{error}")

    with torch.no_grad():
        answer(module, features)
        replicas = replicate(module, [0, 1, 2], detach=True)
        for number, replica in enumerate(replicas):
            norm = [part for part in replica.modules() if isinstance(part, nn.BatchNorm2d)][-1]
            norm.weight.mul_(1 + number)
        wanted = [answer(replica, features, by_modules=True) for replica in replicas]
    threads = [threading.Thread(target=evaluate, args=pair) for pair in zip(replicas, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
