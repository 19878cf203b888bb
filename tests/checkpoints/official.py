"""Random checkpoints in the layout of the official code."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def official(repository: Path) -> ModuleType:
    """The module tests/models/official_network.py."""
    path = repository / "tests" / "models" / "official_network.py"
    spec = importlib.util.spec_from_file_location("official_network", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_state(official: ModuleType) -> Callable[..., dict[str, torch.Tensor]]:
    """Make random state dicts as the official code saves them: with the prefix and num_batches_tracked."""

    def make(depth: int, attention: str, classes: int = 10, wrapper: str = "module.") -> dict[str, torch.Tensor]:
        state = official.random_state(attention, depth, classes)
        complete = {}
        for name, values in state.items():
            complete[wrapper + name] = values
            if name.endswith("running_var"):
                complete[wrapper + name.replace("running_var", "num_batches_tracked")] = torch.tensor(5005)
        return complete

    return make


@pytest.fixture(scope="session")
def save_official(official_state: Callable[..., Any]) -> Callable[..., dict[str, torch.Tensor]]:
    """Write checkpoints as the official train.py does, with optimizer and scheduler. Return the state dict."""

    def save(path: Path, depth: int, attention: str, **options: Any) -> dict[str, torch.Tensor]:
        state = official_state(depth, attention, **options)
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
        parameter.sum().backward()
        optimizer.step()
        checkpoint = {"epoch": 100, "state_dict": state, "top1_val": 0.7, "top5_val": 0.9}
        torch.save(checkpoint | {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, path)
        return state

    return save
