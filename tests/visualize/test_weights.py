"""Attention weights as arrays, and the location of their footprints in the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sa_layers.layers import PatchwiseSelfAttention
from sa_layers.visualize import VisualizationError, attention_weights
from sa_layers.visualize.geometry import image_stride
from sa_layers.visualize.weights import LayerWeights, last_of_each_stage

from .networks import ATTENTIONS, image, small


def find(layers: list[LayerWeights], name: str) -> LayerWeights:
    (layer,) = (layer for layer in layers if layer.name == name)
    return layer


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_weights_are_those_that_the_layer_computes(attention: str) -> None:
    """The weights are equal to those recomputed from the features of the previous stage."""
    network, photograph = small(attention, out_indices=range(5)).eval(), image()
    layers = attention_weights(network, photograph)
    assert [layer.name for layer in layers] == [
        f"stages.{stage}.blocks.{block}.attention" for stage, block in [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]
    ]
    with torch.no_grad():
        stage = network.stages[3]
        entering = stage.transition(stage.pool(network(photograph)[2]))
        block = stage.blocks[0]
        expected = block.attention.weights(block.act1(block.norm1(entering)))[0]
    seen = find(layers, "stages.3.blocks.0.attention")
    assert seen.weights.shape == (2, 3, 3, 4, 6)
    np.testing.assert_allclose(seen.weights.reshape(2, 9, 4, 6), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert seen.softmax == (attention == "pairwise")
    assert [layer.name for layer in last_of_each_stage(layers)].count("stages.2.blocks.1.attention") == 1
    assert len(last_of_each_stage(layers)) == 5


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_model_is_not_changed(attention: str) -> None:
    """Modes, running statistics, gradients and hooks."""
    network = small(attention).train()
    network.stages[0].eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attention_weights(network, image())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_footprint_is_centred_at_its_pixel() -> None:
    layer = find(attention_weights(small("patchwise"), image()), "stages.1.blocks.0.attention")
    assert (layer.image_stride, layer.map_size, layer.stage) == (4, (16, 24), "stages.1")
    pixel = (41, 22)  # row 5, column 10 of the map
    np.testing.assert_array_equal(layer.kernels(pixel), layer.weights[:, :, :, 5, 10])
    kernel = layer.kernels(pixel)[0]
    on_image = layer.on_image(kernel, pixel, (64, 96))
    left, top, right, bottom = layer.box(pixel)
    assert (left, top, right, bottom) == (36, 16, 48, 28)
    np.testing.assert_array_equal(on_image[top:bottom:4, left:right:4], kernel)
    on_image[top:bottom, left:right] = 0
    assert not on_image.any()
    with pytest.raises(VisualizationError, match="x from 0 to 95 and y from 0 to 63, got -1 0"):
        layer.kernels((-1, 0))


@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_footprint_on_the_border(padding_mode: str, stride: int, dilation: int) -> None:
    """The weighted sum of the values by on_image is equal to the output of the layer, also at the border."""
    torch.manual_seed(0)
    options = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode, "share": 1}
    layer = PatchwiseSelfAttention(2, 2, 5, **options).eval()
    photograph = image(6, 7, channels=2)
    (seen,) = attention_weights(nn.Sequential(layer), photograph)
    value, output = layer.transform(photograph)[2][0].detach().numpy(), layer(photograph)[0].detach().numpy()
    for row, column in np.ndindex(output.shape[1:]):
        pixel = column * stride, row * stride
        for channel, kernel in enumerate(seen.kernels(pixel)):
            total = (seen.on_image(kernel, pixel, (6, 7)) * value[channel]).sum()
            assert total == pytest.approx(output[channel, row, column], abs=1e-5)


@pytest.mark.parametrize(("size", "on_map"), [(64, 2), (65, 2), (95, 2), (224, 7), (223, 6)])
def test_stride_where_pooling_drops_pixels(size: int, on_map: int) -> None:
    assert image_stride((size, 64), (on_map, 2)) == 32


@pytest.mark.parametrize(
    ("model", "photograph", "message"),
    [
        (nn.Conv2d(3, 8, 1), image(), "Conv2d has no attention layers of sa_layers"),
        (small("pairwise"), image().expand(2, -1, -1, -1), "image must be one image, got a batch of 2"),
        (small("pairwise"), image()[0, 0], r"got torch.float32 of shape \(64, 96\)"),
        (small("pairwise"), image().byte(), "image must be a normalised floating-point tensor"),
        (small("pairwise"), "cat.jpg", "got str"),
    ],
)
def test_invalid_model_or_image(model: nn.Module, photograph: torch.Tensor, message: str) -> None:
    with pytest.raises(VisualizationError, match=message):
        attention_weights(model, photograph)
