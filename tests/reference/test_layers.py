"""Both attention layers, whose norms use the statistics of the batch in training mode, equal the whole attentions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sa_layers import reference
from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.reference import AttentionGradients, BatchNorm, FrozenNorm, MappingLayer, PairPosition

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


def compute(layer: Any, maps: Sequence[Tensor], grad_output: Tensor | None = None) -> Any:
    """Compute a layer, from query, key and value, by the reference of its operator, with gradients of an output's."""
    options = {"position": pair_position(layer.position)} if layer.position is not None else {}
    name = "pairwise_attention" if isinstance(layer, PairwiseSelfAttention) else "patchwise_attention"
    arrays = [array(map_) for map_ in maps]
    if grad_output is not None:
        name, arrays = f"{name}_backward", [array(grad_output), *arrays]
    kernel_size, *geometry = layer.footprint
    return getattr(reference, name)(*arrays, mapping(layer.mapping), kernel_size, layer.relation, *geometry, **options)


def parameter_gradients(layer: Any, gradients: AttentionGradients) -> Iterator[tuple[nn.Parameter, Array]]:
    """Yield the parameters of mapping and position, each with its gradient by the reference."""
    norms, linear_layers = layer.mapping[::3], layer.mapping[2::3]
    for norm_, linear, layer_gradients in zip(norms, linear_layers, gradients.mapping, strict=True):
        (of_scale, of_shift), (of_norm, of_weight, of_bias) = layer_gradients.norm[:2], layer_gradients
        if isinstance(of_norm, FrozenNorm):  # scale = weight / deviation, shift = bias - scale * mean
            deviation = np.sqrt(array(norm_.running_var) + norm_.eps)
            of_scale = (of_scale - of_shift * array(norm_.running_mean)) / deviation
        yield from [(norm_.weight, of_scale), (norm_.bias, of_shift), (linear.weight, of_weight[:, :, None, None])]
        if linear.bias is not None:
            yield linear.bias, of_bias
    if gradients.position is not None:
        of_query, of_key, _ = gradients.position
        if layer.position.position == "relative":
            of_matrix = of_query - of_key
        else:
            of_matrix = of_query[: len(of_query) // 2] + of_key[len(of_key) // 2 :]
        yield layer.position.transform.weight, of_matrix[:, :2, None, None]
        yield layer.position.transform.bias, of_matrix[:, 2]


def make_layer(layer_class: Any, options: dict[str, Any], training: bool) -> Any:
    """Return a layer of 6 channels with random parameters and running statistics, in float64."""
    torch.manual_seed(0)
    layer = layer_class(6, 8, 3, stride=2, share=2, **options).double()
    for name, buffer in layer.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer.train(training)


@every_layer
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_layer_equals_the_reference(layer_class: Any, options: dict[str, Any], training: bool) -> None:
    layer = make_layer(layer_class, options, training)
    features = torch.randn(2, 6, 7, 6, dtype=torch.float64)
    expected = compute(layer, layer.transform(features))
    np.testing.assert_allclose(array(layer(features)), expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # where evaluation is fused
        np.testing.assert_allclose(array(layer(features)), expected, rtol=1e-10, atol=1e-10)


@every_layer
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients_equal_the_reference(layer_class: Any, options: dict[str, Any], training: bool) -> None:
    """By whichever operators the layer computes them."""
    layer = make_layer(layer_class, options, training)
    features = torch.randn(2, 6, 7, 6, dtype=torch.float64)
    maps = [map_.detach().requires_grad_() for map_ in layer.transform(features)]
    output = layer.attend(*maps)
    grad_output = torch.randn_like(output)
    _, gradients = compute(layer, maps, grad_output)
    pairs = [*zip(maps, gradients[:3], strict=True), *parameter_gradients(layer, gradients)]
    leaves, expected = zip(*pairs, strict=True)
    for gradient, of_reference in zip(torch.autograd.grad(output, leaves, grad_output), expected, strict=True):
        np.testing.assert_allclose(array(gradient), of_reference, rtol=1e-9, atol=1e-9)
