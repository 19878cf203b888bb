"""Small modules whose training steps are fused, in float64, and inputs of odd sizes."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork
from sa_layers.models.self_attention_stage import SelfAttentionStage

from .gaps import open_gaps
from .problem import randomise

SMALL: dict[str, Any] = {"depth": (1, 2, 1, 1, 1), "widths": (16, 32, 32, 32, 32), "kernel_sizes": (3, 5, 3, 3, 3)}
SMALL |= {"num_stages": 2, "share": 4}
STAGE: dict[str, Any] = {"in_channels": 8, "channels": 32, "blocks": 2, "kernel_size": 3, "stride": 2, "share": 4}
SUBJECTS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "pairwise layer": (functools.partial(PairwiseSelfAttention, 12, 16, 3), 12),
    "patchwise layer": (functools.partial(PatchwiseSelfAttention, 12, 16, 3, share=4), 12),
    "pairwise block": (functools.partial(SelfAttentionBlock, 32, 5, share=4), 32),
    "patchwise block": (functools.partial(SelfAttentionBlock, 32, 3, "patchwise", share=4), 32),
    "pairwise stage": (functools.partial(SelfAttentionStage, **STAGE), 8),
    "patchwise stage": (functools.partial(SelfAttentionStage, **STAGE, attention="patchwise"), 8),
    "pairwise network": (functools.partial(SelfAttentionNetwork, **SMALL, out_indices=(0, 1)), 3),
    "patchwise network": (functools.partial(SelfAttentionNetwork, attention="patchwise", **SMALL), 3),
    "classifier": (functools.partial(SelfAttentionClassifier, num_classes=5, **SMALL), 3),
}
EVERY_SUBJECT = pytest.mark.parametrize("name", SUBJECTS)
BLOCKS = pytest.mark.parametrize("name", ["pairwise block", "patchwise block"])
NETWORKS = pytest.mark.parametrize("name", ["pairwise network", "patchwise network"])
LARGE = pytest.mark.parametrize("name", ["pairwise block", "patchwise block", "pairwise network", "patchwise network"])


def subject(
    name: str, act_layer: Callable[[], nn.Module] = nn.ReLU, norm_layer: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> nn.Module:
    """A module in training mode without pre-activations near zero for the input of :func:`features_for`."""
    return copy.deepcopy(_made(name, act_layer, norm_layer))


@functools.cache
def _made(name: str, act_layer: Callable[[], nn.Module], norm_layer: Callable[[int], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = SUBJECTS[name][0](act_layer=act_layer, norm_layer=norm_layer)
    randomise(module, random.Random(0))
    module.double()
    open_gaps(module, features_for(name))
    return module


def features_for(name: str, batch: int = 3, *, wants_gradient: bool = True, seed: int = 0) -> Tensor:
    """A leaf in float64."""
    size = (10, 13) if "network" in name or name == "classifier" else (7, 6)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, SUBJECTS[name][1], *size, generator=generator).double()
    return features.requires_grad_(wants_gradient)


def norms_of(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """All batch norms by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)}
