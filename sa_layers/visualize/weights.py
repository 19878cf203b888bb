"""Attention weights of the layers of a model for one image, and their location in the image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..layers import PairwiseSelfAttention
from ..ops.footprint import Footprint, bounce
from .errors import VisualizationError
from .geometry import check_pixel, image_stride
from .inspection import attention_layers, check_image, compute_features, forward_hooks, in_evaluation_mode

Array = NDArray[np.float32]
Pixel = tuple[int, int]


@dataclass(frozen=True)
class LayerWeights:
    """The attention weights of one call of one layer.

    Attributes:
        name: Name of the layer in the model, such as 'backbone.stages.2.blocks.1.attention'.
        weights: Weights of shape (Cw, Kh, Kw, Ho, Wo), float32.
        footprint: Footprint of the layer, in pixels of its input map.
        map_size: Height and width of the input map.
        image_size: Height and width of the model's input image.
        softmax: Whether the weights are positive and sum to 1 (pairwise) or may have both signs (patchwise).
    """

    name: str
    weights: Array
    footprint: Footprint
    map_size: tuple[int, int]
    image_size: tuple[int, int]
    softmax: bool

    @property
    def image_stride(self) -> int:
        """Stride of the layer's input map in image pixels."""
        return image_stride(self.image_size, self.map_size)

    @property
    def stage(self) -> str:
        """Name of the layer's stage, which ends at the first number: 'backbone.stages.2', 'backbone.layer3'."""
        match = re.match(r"\D*\d+", self.name)
        return match.group() if match else self.name

    def kernels(self, pixel: Pixel) -> Array:
        """Return the weights (Cw, Kh, Kw) of the footprint centred at a pixel (x, y) of the image.

        Raises:
            VisualizationError: If the pixel lies outside of the image.
        """
        row, column = self._centre(pixel)
        return self.weights[..., row // self.footprint.stride[0], column // self.footprint.stride[1]]

    def on_image(self, kernel: Array, pixel: Pixel, image_size: Sequence[int]) -> Array:
        """Return an image-sized map (H, W) with the weights of a kernel (Kh, Kw) at the pixels that its taps read.

        Weights of taps beyond the border are added at the reflected pixels. Pixels outside of the footprint are 0.
        """
        on_map = np.zeros(self.map_size, np.float32)
        (row, column), (height, width) = self._centre(pixel), self.map_size
        rows, inside_rows = self._taps(row // self.footprint.stride[0], 0, height)
        columns, inside_columns = self._taps(column // self.footprint.stride[1], 1, width)
        np.add.at(on_map, np.ix_(rows, columns), kernel * np.outer(inside_rows, inside_columns))
        upsampled = on_map.repeat(self.image_stride, axis=0).repeat(self.image_stride, axis=1)
        on_image = np.zeros(tuple(image_size), np.float32)
        cropped = upsampled[: image_size[0], : image_size[1]]
        on_image[: cropped.shape[0], : cropped.shape[1]] = cropped
        return on_image

    def box(self, pixel: Pixel) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the footprint in image pixels. They may lie outside of the image."""
        row, column = self._centre(pixel)
        padding_rows, padding_columns = self.footprint.padding
        top, left = row - padding_rows, column - padding_columns
        bottom, right = row + padding_rows + 1, column + padding_columns + 1
        return left * self.image_stride, top * self.image_stride, right * self.image_stride, bottom * self.image_stride

    def _centre(self, pixel: Pixel) -> tuple[int, int]:
        """Return row and column of the footprint's centre on the layer's input map for a pixel of the image."""
        x, y = check_pixel(pixel, self.image_size)
        centre = []
        for position, size, stride in zip((y, x), self.map_size, self.footprint.stride, strict=True):
            on_map = min(position // self.image_stride, size - 1)  # pooling may drop the last pixels
            centre.append(on_map // stride * stride)
        return centre[0], centre[1]

    def _taps(self, index: int, axis: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the positions that the taps of an output position read along an axis, and whether they read any."""
        kernel_size, stride, dilation = (pair[axis] for pair in self.footprint[:3])
        padding = self.footprint.padding[axis]
        padded = index * stride + dilation * np.arange(kernel_size)
        source = bounce(size, padding, torch.device("cpu")).numpy()[padded]
        beyond = (padded < padding) | (padded >= size + padding)
        return source, ~(beyond & (self.footprint.padding_mode == "zeros"))


def attention_weights(model: nn.Module, image: Tensor) -> list[LayerWeights]:
    """Compute the attention weights of every layer for one image, in the order in which the layers are called.

    The model is called in evaluation mode and without gradients. Its state does not change.

    Args:
        model: Module with attention layers: a network of `sa_layers.models`, a backbone, or a model of mmseg, mmdet or
            mmpretrain, of which only backbone and neck are called.
        image: Normalised image, (C, H, W) or (1, C, H, W).

    Returns:
        The weights of each call of a layer.

    Raises:
        VisualizationError: If the model has no attention layers or the image is not a floating-point tensor.

    Example:
        >>> from sa_layers.models import SelfAttentionNetwork
        >>> layers = attention_weights(SelfAttentionNetwork(depth=10), torch.randn(3, 64, 64))
        >>> layers[2].name, layers[2].image_stride, layers[2].weights.shape
        ('stages.1.blocks.0.attention', 4, (8, 7, 7, 16, 16))
        >>> layers[2].kernels((40, 24)).shape
        (8, 7, 7)
    """
    layers = attention_layers(model)
    image = check_image(image)
    if len(image) != 1:
        raise VisualizationError(f"image must be one image, got a batch of {len(image)}")
    recorded: list[LayerWeights] = []

    def record(name: str, features: Tensor, _: Tensor) -> None:
        layer = layers[name]
        weights = layer.weights(features)[0].unflatten(1, layer.footprint.kernel_size)
        recorded.append(
            LayerWeights(
                name,
                weights.float().cpu().numpy(),
                layer.footprint,
                (features.shape[-2], features.shape[-1]),
                (image.shape[-2], image.shape[-1]),
                isinstance(layer, PairwiseSelfAttention),
            )
        )

    with in_evaluation_mode(model), torch.no_grad(), forward_hooks(dict(layers), record):
        compute_features(model, image)
    if not recorded:
        raise VisualizationError(
            f"{type(model).__name__} has no attention layers in its backbone and neck; those of its head are not "
            "supported"
        )
    return recorded


def last_of_each_stage(layers: Sequence[LayerWeights]) -> list[LayerWeights]:
    """Return the last layer of each stage."""
    return list({layer.stage: layer for layer in layers}.values())
