"""A small network and a random image for the tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sa_layers.models import SelfAttentionNetwork

ATTENTIONS = ("pairwise", "patchwise")
SMALL: dict[str, Any] = {"depth": (1, 1, 2, 1, 1), "widths": (32, 32, 64, 64, 96), "kernel_sizes": (3, 3, 5, 3, 7)}


def small(attention: str, **options: Any) -> nn.Module:
    """Make a small network with the same parameters at every call."""
    torch.manual_seed(0)
    return SelfAttentionNetwork(attention=attention, **SMALL | options)


def image(height: int = 64, width: int = 96, channels: int = 3) -> torch.Tensor:
    """Make a random image, not square by default."""
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))
