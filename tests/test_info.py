"""``python -m sa_layers.info``, each time as in a new process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sa_layers.ops import BACKENDS, extension
from sa_layers.ops.backend import why_not
from tests.conftest import MakeOnce, RunPython, programs_in

INFO = """
import os, sys

os.environ |= {environment}
sys.modules |= dict.fromkeys({missing})
from sa_layers.info import main

main(["--json"])
"""
PROGRAMS = {
    "default": INFO.format(environment={}, missing=[]),
    "no kernels": INFO.format(environment={"SA_LAYERS_KERNELS": "off"}, missing=[]),
    "unavailable": INFO.format(environment={"SA_LAYERS_KERNELS": "off", "SA_LAYERS_BACKEND": "native"}, missing=[]),
    "torch alone": INFO.format(environment={}, missing=["numba", "rich", "matplotlib", "mmengine"]),
} | {name: INFO.format(environment={"SA_LAYERS_BACKEND": name}, missing=[]) for name in BACKENDS}


@pytest.fixture(scope="module")
def found(make_once: MakeOnce) -> dict[str, Any]:
    """The information that each program gives."""

    def make(folder: Path) -> None:
        (folder / "printed.json").write_text(json.dumps(programs_in(folder)(PROGRAMS)))

    printed = json.loads((make_once("info", make) / "printed.json").read_text())
    return {name: json.loads(text) for name, text in printed.items()}


def test_as_text(run_python: RunPython) -> None:
    lines = run_python(None, "-m", "sa_layers.info").stdout.splitlines()
    assert f"  torch: {torch.__version__}" in lines
    assert "devices:" in lines
    assert "  cpu:" in lines


def test_default_environment(found: dict[str, Any]) -> None:
    found = found["default"]
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
def test_a_forced_backend(found: dict[str, Any], name: str) -> None:
    if obstacle := why_not(name, torch.device("cpu")):
        pytest.skip(obstacle)
    found = found[name]
    assert found["devices"]["cpu"]["chosen"] == name
    assert found["environment"] == {"SA_LAYERS_BACKEND": name}


def test_without_kernels(found: dict[str, Any]) -> None:
    found = found["no kernels"]
    assert found["kernels"]["loaded"] is False
    assert "SA_LAYERS_KERNELS=off" in found["kernels"]["why_not"]
    assert found["devices"]["cpu"]["chosen"] == "torch"
    assert "SA_LAYERS_KERNELS=off" in found["devices"]["cpu"]["why_not"]["native"]


def test_unavailable_backend(found: dict[str, Any]) -> None:
    """The reason is reported, and the command does not fail."""
    found = found["unavailable"]["devices"]["cpu"]
    assert found["chosen"] is None
    assert found["why_not"]["all"].startswith("backend 'native' cannot be used: ")


def test_with_torch_alone(found: dict[str, Any]) -> None:
    assert "pip install 'sa-layers[reference]'" in found["torch alone"]["devices"]["cpu"]["why_not"]["reference"]
