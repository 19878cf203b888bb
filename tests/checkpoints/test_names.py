"""Translation of the tensor names of the six official networks, and detection of the network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from sa_layers.checkpoints.names import to_official, to_ours
from sa_layers.convert.architecture import Architecture, detect
from sa_layers.models import SelfAttentionNetwork

NETWORKS = list(product((10, 15, 19), ("pairwise", "patchwise")))


@pytest.mark.parametrize(("depth", "attention"), NETWORKS)
def test_translation(depth: int, attention: str, official: ModuleType, official_state: Callable[..., Any]) -> None:
    """The translation is a bijection between the official and our tensors, and the shapes are equal."""
    names = list(official_state(depth, attention, wrapper=""))
    ours = [to_ours(name) for name in names]
    assert [to_official(name) for name in ours] == names
    assert all(
        name.startswith("head.") or name == f"backbone.{official.our_name(old)}"
        for name, old in zip(ours, names, strict=True)
    )
    with torch.device("meta"):
        network = SelfAttentionNetwork(depth, attention)
        classifier = nn.ModuleDict({"backbone": network, "head": nn.ModuleDict({"fc": nn.Linear(2048, 10)})})
    shapes = {name: values.shape for name, values in official_state(depth, attention, wrapper="").items()}
    assert {to_official(name): values.shape for name, values in classifier.state_dict().items()} == shapes


@pytest.mark.parametrize(("depth", "attention"), NETWORKS)
def test_detection(depth: int, attention: str, official_state: Callable[..., Any]) -> None:
    """Attention, depth and number of classes are detected from names and shapes."""
    state = {to_ours(name): values for name, values in official_state(depth, attention, classes=7, wrapper="").items()}
    assert detect(state) == Architecture(depth, attention, 7)


def test_other_depths(official_state: Callable[..., Any]) -> None:
    """Official networks with other numbers of blocks are detected as well."""
    state = official_state(15, "pairwise", wrapper="")
    shorter = {to_ours(name): values for name, values in state.items() if not name.startswith("layer0.2.")}
    assert detect(shorter).depth == (2, 2, 3, 5, 2)


@pytest.mark.parametrize("name", ["conv1x.weight", "layer1.0.conv1.weight", "module.fc.weight", "fc", "conv_in", ""])
def test_foreign_names(name: str) -> None:
    """Names of a ResNet's tensor, of a wrapped tensor and of modules."""
    with pytest.raises(ValueError, match=r"is not a tensor of an official network"):
        to_ours(name)
    with pytest.raises(ValueError, match=r"is not a tensor of an sa_layers classifier"):
        to_official(name)
