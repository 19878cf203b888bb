"""Both attention layers equal their equations: output, running statistics and every gradient, in training mode."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention

from .formula import self_attention

LAYERS = {"pairwise": PairwiseSelfAttention, "patchwise": PatchwiseSelfAttention}
RELATIONS = {
    "pairwise": ("subtraction", "summation", "hadamard", "dot", "concatenation"),
    "patchwise": ("concatenation", "star", "clique"),
}
POSITIONS = {"pairwise": ("relative", "absolute", None), "patchwise": (None,)}
ATTENTIONS = tuple(LAYERS)


def check(attention: str, size: tuple[int, int], **options: Any) -> None:
    """Compares a layer of random parameters with its equations."""
    torch.manual_seed(0)
    options = {"kernel_size": 3, "relation": RELATIONS[attention][0], "mapping_layers": 2} | options
    if attention == "pairwise":
        options.setdefault("position", "relative")
    layer = LAYERS[attention](6, 8, share=2, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    features = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 8, *(-(-side // options.get("stride", 1)) for side in size), dtype=torch.float64)

    expected, statistics = self_attention(layer, features, options)
    inputs = [features, *layer.parameters()]
    expected_gradients = torch.autograd.grad((expected * direction).sum(), inputs)
    output = layer(features)
    gradients = torch.autograd.grad((output * direction).sum(), inputs)

    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)
    for (name, _), gradient, expected_gradient in zip(
        [("features", features), *layer.named_parameters()], gradients, expected_gradients, strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    for name, values in statistics.items():
        torch.testing.assert_close(layer.state_dict()[name], values)
        assert not name.endswith("var") or not torch.equal(values, torch.ones_like(values))


@pytest.mark.parametrize("shared_transforms", [None, "query_key", "all"])
@pytest.mark.parametrize("mapping_layers", [1, 2, 3])
@pytest.mark.parametrize(
    ("attention", "relation", "position"),
    [(attention, *pair) for attention in ATTENTIONS for pair in product(RELATIONS[attention], POSITIONS[attention])],
)
def test_every_combination(
    attention: str, relation: str, position: str | None, mapping_layers: int, shared_transforms: str | None
) -> None:
    """Relation x position x mapping x sharing of transformations."""
    options: dict[str, Any] = {"mapping_layers": mapping_layers, "shared_transforms": shared_transforms}
    if attention == "pairwise":
        options["position"] = position
    check(attention, (4, 3), relation=relation, **options)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 2), (4, 9)])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_maps_smaller_than_the_footprint(attention: str, size: tuple[int, int]) -> None:
    """Reflection goes back and forth as often as the footprint asks; a single pixel is its own neighbour."""
    check(attention, size, kernel_size=7)


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2), (2, 3), (3, 2), (4, 1)])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_stride_and_dilation(attention: str, stride: int, dilation: int, padding_mode: str) -> None:
    """Of both kinds, of which the official network's patchwise layer takes neither."""
    check(attention, (7, 6), stride=stride, dilation=dilation, padding_mode=padding_mode)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_evaluation_uses_the_running_statistics(attention: str) -> None:
    """A batch mate makes a difference in training and none in evaluation."""
    torch.manual_seed(0)
    layer = LAYERS[attention](6, 8, 3).double()
    features = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    assert not torch.allclose(layer(features)[:1], layer(features[:1]))
    layer.eval()
    torch.testing.assert_close(layer(features)[:1], layer(features[:1]))


def test_position_bias_cancels() -> None:
    """In relative position, its gradient is zero but there, for it belongs to the official checkpoints."""
    torch.manual_seed(0)
    layer = PairwiseSelfAttention(8, 8, 5).double()
    layer(torch.randn(2, 8, 6, 4, dtype=torch.float64)).square().sum().backward()
    assert layer.position.transform.weight.grad.abs().max() > 1e-6
    assert layer.position.transform.bias.grad.abs().max() < 1e-12
