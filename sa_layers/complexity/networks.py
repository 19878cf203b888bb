"""Classifiers on the meta device: self-attention networks and the ResNets that the paper compares them with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models import SelfAttentionNetwork

RESNETS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}


class Classifier(nn.Module):
    """A backbone, global average pooling and a linear head.

    Args:
        backbone: The backbone.
        classes: Number of classes.
    """

    def __init__(self, backbone: SelfAttentionNetwork, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(backbone.out_channels[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return self.head(self.pool(self.backbone(image)[-1]).flatten(1))


def san(classes: int = 1000, **options: Any) -> Classifier:
    """Make a SAN classifier on the meta device. ``options`` are those of :class:`SelfAttentionNetwork`."""
    with torch.device("meta"):
        return Classifier(SelfAttentionNetwork(**options), classes)


def resnet(depth: int, classes: int = 1000) -> nn.Module | None:
    """Make a ResNet-26, 38 or 50 on the meta device. Return None if torchvision is not installed."""
    try:
        from torchvision.models.resnet import Bottleneck, ResNet
    except ImportError:
        return None
    with torch.device("meta"):
        return ResNet(Bottleneck, list(RESNETS[depth]), num_classes=classes)
