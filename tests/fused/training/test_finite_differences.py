"""Gradients of layers and blocks against finite differences in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.ops import PAIRWISE_RELATIONS, PATCHWISE_RELATIONS
from tests.sampling import sample

LAYERS: list[tuple[type[nn.Module], str, dict[str, Any]]] = [
    (kind, relation, options)
    for kind, relations in ((PairwiseSelfAttention, PAIRWISE_RELATIONS), (PatchwiseSelfAttention, PATCHWISE_RELATIONS))
    for relation in relations
    for options in ({}, {"stride": 2, "padding_mode": "zeros"}, {"dilation": 2, "shared_transforms": "query_key"})
]


@pytest.mark.parametrize("evaluated", [False, True], ids=["batch statistics", "frozen norms"])
@pytest.mark.parametrize(("kind", "relation", "options"), sample(LAYERS, 8), ids=str)
def test_finite_differences_of_layers(
    kind: type[nn.Module], relation: str, options: dict[str, Any], evaluated: bool
) -> None:
    torch.manual_seed(0)
    layer = kind(3, 4, 3, relation=relation, share=2, relation_channels=2, **options).double()
    check_finite_differences(layer, torch.randn(2, 3, 4, 3).double(), evaluated)


@pytest.mark.parametrize("evaluated", [False, True], ids=["batch statistics", "frozen norms"])
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_finite_differences_of_blocks(attention: str, evaluated: bool) -> None:
    torch.manual_seed(0)
    block = SelfAttentionBlock(16, 3, attention, share=2).double()
    check_finite_differences(block, torch.randn(2, 16, 3, 4).double(), evaluated)


def check_finite_differences(module: nn.Module, features: Tensor, evaluated: bool) -> None:
    """Of the input and of all parameters of the module itself, whose values are changed in place."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)  # by default a pixel's offset to itself lies on the kink of the ReLU
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.train(not evaluated)
    features.requires_grad_()
    operands = (features, *module.parameters())
    assert gradcheck(lambda features, *_: module(features), operands, fast_mode=True, atol=1e-4)
