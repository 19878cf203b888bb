"""The ResNets that the paper compares SAN with: sizes, registration, and lazy import of mmpretrain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("mmpretrain")

from mmengine.registry import MODELS, DefaultScope

PARAMETERS = {26: 13_696_552, 38: 19_626_792, 50: 25_557_032}
BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}


def build(depth: int = 26, **options: Any) -> Any:
    """Build a ResNet by its registered name."""
    return MODELS.build({"type": "sa_layers.ResNet", "depth": depth, **options})


@pytest.mark.parametrize("depth", PARAMETERS)
def test_sizes(depth: int) -> None:
    """The parameters of the paper's networks, with a head of 1000 classes."""
    backbone = build(depth)
    assert (
        sum(parameter.numel() for parameter in [*backbone.parameters(), *nn.Linear(2048, 1000).parameters()])
        == (PARAMETERS[depth])
    )
    assert tuple(len(getattr(backbone, f"layer{stage}")) for stage in (1, 2, 3, 4)) == BLOCKS[depth]


@pytest.mark.parametrize("depth", [26, 38])
def test_equals_torchvision(depth: int) -> None:
    """Torchvision's ResNet with the same parameters returns the same features."""
    resnet = pytest.importorskip("torchvision").models.resnet
    other = resnet.ResNet(resnet.Bottleneck, BLOCKS[depth])
    other.fc = nn.Identity()
    other.avgpool = nn.Identity()
    backbone = build(depth)
    backbone.init_weights()
    other.load_state_dict(backbone.state_dict())
    backbone.eval()
    other.eval()
    image = torch.randn(1, 3, 64, 32)
    torch.testing.assert_close(backbone(image)[0].flatten(1), other(image))


def test_pretrained(tmp_path: Path) -> None:
    """The backbone of a classifier's checkpoint, which replaces the initialisation of the residual branches too."""
    saved = build()
    state = {f"backbone.{name}": values + 1 for name, values in saved.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet.pth")
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "resnet.pth"), "prefix": "backbone."}
    backbone = build(init_cfg=init_cfg)
    backbone.init_weights()
    assert all(torch.equal(values, state[f"backbone.{name}"]) for name, values in backbone.state_dict().items())


@pytest.mark.parametrize("scope", ["mmdet", "mmpretrain", "mmseg"])
def test_scopes(scope: str) -> None:
    """In every scope the prefixed name builds our ResNet, and the bare name the toolbox's own."""
    pytest.importorskip(scope)
    with DefaultScope.overwrite_default_scope(scope):
        backbone = build(26, out_indices=(0, 1, 2, 3), frozen_stages=1, norm_eval=True)
        assert type(backbone).__module__ == "sa_layers.backbones.resnet"
        if scope == "mmpretrain":
            assert type(MODELS.build({"type": "ResNet", "depth": 50})).__module__.startswith("mmpretrain")
    shapes = [tuple(features.shape) for features in backbone(torch.randn(1, 3, 64, 32))]
    assert shapes == [(1, 256, 16, 8), (1, 512, 8, 4), (1, 1024, 4, 2), (1, 2048, 2, 1)]
    assert not any(parameter.requires_grad for parameter in backbone.layer1.parameters())


def test_layer_depths() -> None:
    """Layer depths of a ResNet-26, which mmpretrain does not support."""
    backbone = build(26)
    names = {"conv1.weight": 0, "layer1.0.conv1.weight": 1, "layer3.3.bn1.weight": 7, "layer4.0.downsample.0.weight": 8}
    assert {name: backbone.get_layer_depth(name)[0] for name in names} == names
    assert backbone.get_layer_depth("backbone.layer4.0.conv1.weight", "backbone.") == (8, 10)
    assert backbone.get_layer_depth("head.fc.weight", "backbone.") == (9, 10)


WITHOUT_MMPRETRAIN = """
import sys


class Absent:
    def find_spec(name, path=None, target=None):
        if name == 'mmpretrain':
            raise ModuleNotFoundError("No module named 'mmpretrain'", name=name)


sys.meta_path.insert(0, Absent)
from mmengine.registry import MODELS

print(type(MODELS.build(dict(type='sa_layers.SAN'))).__name__)
try:
    MODELS.build(dict(type='sa_layers.ResNet', depth=26))
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_mmpretrain(run_python: Callable[..., CompletedProcess[str]]) -> None:
    """Building a SAN does not import mmpretrain. Building the ResNet without it raises a helpful error."""
    output = run_python(WITHOUT_MMPRETRAIN).stdout.splitlines()
    assert output[-2] == "SAN"
    assert output[-1].startswith("sa_layers.ResNet needs mmpretrain, which is not installed: pip install")
    imported = run_python(
        "import sys; from mmengine.registry import MODELS; MODELS.build(dict(type='sa_layers.SAN'));"
        "print([name for name in ('mmpretrain', 'mmdet', 'mmseg') if name in sys.modules])"
    ).stdout.splitlines()
    assert imported[-1] == "[]"
