"""torchvision: detectors and segmenters on features of our networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("torchvision")

from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from sa_layers.models import NamedFeatures, SelfAttentionNetwork

from .networks import SMALL

BOXES = torch.tensor([[4.0, 4.0, 40.0, 44.0]])
TARGET = {"boxes": BOXES, "labels": torch.tensor([1])}


def pyramid(attention: str) -> nn.Module:
    """Four levels and a pooled one, as torchvision's detectors expect them."""
    torch.manual_seed(0)
    network = SelfAttentionNetwork(attention=attention, out_indices=(1, 2, 3, 4), **SMALL)
    features = NamedFeatures(network, ["0", "1", "2", "3"])
    backbone: Any = nn.Sequential(features, FeaturePyramidNetwork(network.out_channels, 16, LastLevelMaxPool()))
    backbone.out_channels = 16
    return backbone


@pytest.mark.parametrize(("detector", "attention"), [(FasterRCNN, "pairwise"), (RetinaNet, "patchwise")])
def test_detectors(detector: Any, attention: str) -> None:
    """They train a step, and return boxes."""
    anchors = AnchorGenerator(tuple((size,) for size in (8, 16, 32, 64, 128)), ((0.5, 1.0, 2.0),) * 5)
    name = "anchor_generator" if detector is RetinaNet else "rpn_anchor_generator"
    model = detector(pyramid(attention), num_classes=3, min_size=64, max_size=64, **{name: anchors})
    image = torch.rand(3, 64, 64)
    losses = model([image, image], [TARGET, TARGET])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    with torch.no_grad():
        (found,) = model.eval()([image])
    assert found["boxes"].shape[1:] == (4,)
    assert len(found["boxes"]) == len(found["scores"])


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_deeplab(attention: str) -> None:
    """With an output stride of 8 and an auxiliary head."""
    torch.manual_seed(0)
    network = SelfAttentionNetwork(
        attention=attention, out_indices=(3, 4), strides=(2, 2, 2, 1, 1), dilations=(1, 1, 1, 2, 4), **SMALL
    )
    channels = network.out_channels
    model = DeepLabV3(NamedFeatures(network, ["aux", "out"]), DeepLabHead(channels[1], 3), FCNHead(channels[0], 3))
    outputs = model(torch.randn(2, 3, 64, 64))
    assert outputs["out"].shape == outputs["aux"].shape == (2, 3, 64, 64)
    target = torch.zeros(2, 64, 64, dtype=torch.long)
    sum(F.cross_entropy(output, target) for output in outputs.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_names_are_counted() -> None:
    network = SelfAttentionNetwork(out_indices=(3, 4), **SMALL)
    with pytest.raises(ValueError, match=r"names must be 2, one for each of out_indices, got \['out'\]"):
        NamedFeatures(network, ["out"])
