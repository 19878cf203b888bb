"""mmcv's fuse_conv_bn, which reads the order of modules, does not change what a model computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("mmengine")

from mmcv.cnn import fuse_conv_bn
from mmengine.config import Config
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sa_layers.backbones import SAN, SelfAttentionPlugin
from sa_layers.ops import extension

from .models import batch, build, need
from .test_configs import CONFIGS

SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 96), "kernel_sizes": (3,) * 5}
NECK = {"neck": {"in_channels": [32, 64, 64, 96]}}
TASKS = [
    ("classification/san10-patchwise_1xb16-10e_shapes-64px.py", {"head": {"in_channels": 96}}),
    ("detection/atss_san10-patchwise_fpn_1xb8-6e_shapes-64x64.py", NECK),
    ("segmentation/san10-patchwise_fpn_1xb8-1k_shapes-64x64.py", NECK),
]


def move_statistics(model: nn.Module) -> nn.Module:
    """Give the norms the statistics and weights of a trained network, and set evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm):
            nn.init.normal_(norm.running_mean, generator=generator)
            nn.init.uniform_(norm.running_var, 0.5, 2, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 2, generator=generator)
            nn.init.normal_(norm.bias, generator=generator)
    return model.eval()


def assert_unchanged(model: nn.Module, *inputs: Any, **options: Any) -> nn.Module:
    """Return a model with fused norms, after comparing its outputs in double precision with those of the model."""
    move_statistics(model.double())
    fused = fuse_conv_bn(copy.deepcopy(model))
    norms = [sum(isinstance(module, _BatchNorm) for module in each.modules()) for each in (model, fused)]
    assert norms[1] < norms[0]
    with torch.no_grad():
        torch.testing.assert_close(fused(*inputs, **options), model(*inputs, **options))
    return fused


@pytest.mark.openmmlab
@pytest.mark.parametrize(("name", "parts"), TASKS, ids=["classifier", "detector", "segmentor"])
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_models(name: str, parts: dict[str, Any], attention: str) -> None:
    config = Config.fromfile(CONFIGS / name)
    need(config.default_scope)
    config.merge_from_dict({"model": {"backbone": SMALL | {"attention": attention}} | parts})
    images, samples = batch(config.default_scope)
    assert_unchanged(build(config), images.double(), samples, mode="tensor")


@pytest.mark.parametrize("mapping_layers", [1, 2, 3])
def test_backbone(mapping_layers: int) -> None:
    """In a mapping, the linear layers between norms are fused; the transition of a stage is not."""
    backbone = SAN(**SMALL, mapping_layers=mapping_layers, out_indices=range(5))
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        fused: Any = assert_unchanged(backbone, image)
        assert extension.why_not() or fused.why_not_fused(image) is None


def test_block() -> None:
    """A block behind a convolution, as a plugin of a ResNet is."""
    block = nn.Sequential(nn.Conv2d(3, 32, 1), nn.BatchNorm2d(32), nn.Conv2d(32, 32, 1), SelfAttentionPlugin(32, 3))
    assert_unchanged(block, torch.randn(1, 3, 8, 8, dtype=torch.float64))


def test_parameters_keep_the_order_of_calls() -> None:
    """The states of an optimizer are saved by the position of a parameter."""
    names = [name for name, _ in SAN(**SMALL).stages[0].named_parameters() if "blocks" not in name]
    assert names == ["transition.weight", "norm.weight", "norm.bias"]
