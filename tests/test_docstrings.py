"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sa_layers

NAMES = [
    module.name for module in pkgutil.walk_packages(sa_layers.__path__, "sa_layers.") if "kernels" not in module.name
]
NAMES += ["sa_layers.backbones.san", "sa_layers.backbones.layers"]


@pytest.mark.parametrize("name", sorted(set(NAMES)))
def test_examples(name: str) -> None:
    if name.startswith(("sa_layers.backbones", "sa_layers.registry")):
        pytest.importorskip("mmengine")
    if name == "sa_layers.models.timm_registry":
        pytest.importorskip("timm")
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
