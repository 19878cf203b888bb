"""Both attention layers, whose norms use the statistics of the batch in training mode, equal the whole attentions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sa_layers import reference
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.reference import BatchNorm, FrozenNorm, MappingLayer, PairPosition

from .formulation import Array

PAIRWISE = [
    (PairwiseSelfAttention, {"relation": relation, "position": position})
    for relation in PairwiseSelfAttention.relations
    for position in (None, "relative", "absolute")
]
PATCHWISE = [(PatchwiseSelfAttention, {"relation": relation}) for relation in PatchwiseSelfAttention.relations]
every_layer = pytest.mark.parametrize(
    ("layer_class", "options"),
    PAIRWISE + PATCHWISE,
    ids=[
        "-".join([layer_class.__name__, *map(str, options.values())]) for layer_class, options in PAIRWISE + PATCHWISE
    ],
)


def array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def norm(module: nn.Module) -> FrozenNorm | BatchNorm:
    """Return what a BatchNorm2d computes in the mode that it is in."""
    assert isinstance(module, nn.BatchNorm2d)
    if module.training:
        return BatchNorm(array(module.weight), array(module.bias), module.eps)
    scale = module.weight / (module.running_var + module.eps).sqrt()
    return FrozenNorm(array(scale), array(module.bias - scale * module.running_mean))


def mapping(modules: nn.Sequential) -> list[MappingLayer]:
    return [
        MappingLayer(norm(norm_), array(linear.weight.flatten(1)), None if linear.bias is None else array(linear.bias))
        for norm_, linear in zip(modules[::3], modules[2::3], strict=True)
    ]


def pair_position(encoding: nn.Module) -> PairPosition:
    linear = encoding.transform
    matrix = array(torch.cat([linear.weight.flatten(1), linear.bias[:, None]], dim=1))
    if encoding.position == "relative":
        return PairPosition(matrix, -matrix, encoding.size)
    zeros = np.zeros_like(matrix)
    return PairPosition(np.concatenate([matrix, zeros]), np.concatenate([zeros, matrix]), encoding.size)


def compute(layer: Any, features: Tensor) -> Array:
    """Compute a layer by the reference of its operator."""
    maps = [array(map_) for map_ in layer.transform(features)]
    options = {"position": pair_position(layer.position)} if layer.position is not None else {}
    name = "pairwise_attention" if isinstance(layer, PairwiseSelfAttention) else "patchwise_attention"
    kernel_size, *geometry = layer.footprint
    return getattr(reference, name)(*maps, mapping(layer.mapping), kernel_size, layer.relation, *geometry, **options)


@every_layer
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_layer_equals_the_reference(layer_class: Any, options: dict[str, Any], training: bool) -> None:
    torch.manual_seed(0)
    layer = layer_class(6, 8, 3, stride=2, share=2, **options).double()
    for name, buffer in layer.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    features = torch.randn(2, 6, 7, 6, dtype=torch.float64)
    layer.train(training)
    expected = compute(layer, features)
    np.testing.assert_allclose(array(layer(features)), expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # where evaluation is fused
        np.testing.assert_allclose(array(layer(features)), expected, rtol=1e-10, atol=1e-10)
