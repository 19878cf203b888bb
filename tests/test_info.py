"""``python -m sa_layers.info`` in separate processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sa_layers.ops import BACKENDS, extension
from sa_layers.ops.backend import why_not


@pytest.fixture
def info(run_python: Callable) -> Callable[..., dict[str, Any]]:
    """Return the information for given environment variables."""
    return lambda **environment: json.loads(run_python(None, "-m", "sa_layers.info", "--json", **environment).stdout)


def test_as_text(run_python: Callable) -> None:
    lines = run_python(None, "-m", "sa_layers.info").stdout.splitlines()
    assert f"  torch: {torch.__version__}" in lines
    assert "devices:" in lines
    assert "  cpu:" in lines


def test_default_environment(info: Callable[..., dict[str, Any]]) -> None:
    found = info()
    assert found["kernels"]["loaded"] == extension.is_available()
    assert found["kernels"]["why_not"] == extension.why_not()
    assert found["cuda_kernels"]["loaded"] == (extension.why_not_cuda() is None)
    assert found["devices"]["cpu"]["chosen"] == ("native" if extension.is_available() else "torch")
    assert found["environment"] == {}
    if extension.is_available():
        assert found["kernels"]["cpu_capability"] in ("default", "avx2", "avx512")
    if not torch.cuda.is_available():
        assert "finds no GPU on this machine" in found["devices"]["cuda"]["why_not"]["all"]


@pytest.mark.parametrize("name", BACKENDS)
def test_a_forced_backend(info: Callable[..., dict[str, Any]], name: str) -> None:
    if obstacle := why_not(name, torch.device("cpu")):
        pytest.skip(obstacle)
    found = info(SA_LAYERS_BACKEND=name)
    assert found["devices"]["cpu"]["chosen"] == name
    assert found["environment"] == {"SA_LAYERS_BACKEND": name}


def test_without_kernels(info: Callable[..., dict[str, Any]]) -> None:
    found = info(SA_LAYERS_KERNELS="off")
    assert found["kernels"]["loaded"] is False
    assert "SA_LAYERS_KERNELS=off" in found["kernels"]["why_not"]
    assert found["devices"]["cpu"]["chosen"] == "torch"
    assert "SA_LAYERS_KERNELS=off" in found["devices"]["cpu"]["why_not"]["native"]


def test_unavailable_backend(info: Callable[..., dict[str, Any]]) -> None:
    """The reason is reported, and the command does not fail."""
    found = info(SA_LAYERS_KERNELS="off", SA_LAYERS_BACKEND="native")["devices"]["cpu"]
    assert found["chosen"] is None
    assert found["why_not"]["all"].startswith("backend 'native' cannot be used: ")


def test_with_torch_alone(run_python: Callable) -> None:
    blocked = "import sys\nfor name in ('numba', 'rich', 'matplotlib', 'mmengine'): sys.modules[name] = None\n"
    found = json.loads(run_python(f"{blocked}from sa_layers.info import main\nmain(['--json'])").stdout)
    assert "pip install 'sa-layers[reference]'" in found["devices"]["cpu"]["why_not"]["reference"]
