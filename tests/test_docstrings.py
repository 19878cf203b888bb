"""The examples in the docstrings run and print the documented output."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from unittest import mock

import pytest

import experiments
import sa_layers
from sa_layers.layers import ATTENTIONS

NAMES = [
    module.name
    for package in (sa_layers, experiments)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if "kernels" not in module.name
]
NAMES += [f"sa_layers.backbones.{name}" for name in ("counterparts", "factories", "layers", "resnet", "san")]
NEEDED = {
    "sa_layers.datasets.original": ["mmengine"],
    "sa_layers.datasets.registration": ["mmengine"],
    "sa_layers.datasets.camvid": ["mmseg"],
    "sa_layers.datasets.bccd": ["mmcv._ext", "mmdet"],
}


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_examples(name: str) -> None:
    if name.startswith(("sa_layers.backbones", "sa_layers.registry")) or name.endswith((".hook", ".openmmlab")):
        pytest.importorskip("mmengine")
    if name == "sa_layers.backbones.resnet":
        pytest.importorskip("mmpretrain")
    for needed in NEEDED.get(name, ()):
        pytest.importorskip(needed, exc_type=ImportError)
    if name == "sa_layers.models.timm_registry":
        pytest.importorskip("timm")
    if ".onnx_graph" in name:
        pytest.importorskip("onnxscript")
    module = importlib.import_module(name)
    with mock.patch.dict(ATTENTIONS):  # an example registers one
        assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
