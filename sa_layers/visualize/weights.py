"""The attention weights of every layer of a model for one image, and where in the image they point."""

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
from .looking import attention_layers, check_image, compute_features, in_evaluation_mode, watching

Array = NDArray[np.float32]
Pixel = tuple[int, int]


@dataclass(frozen=True)
class LayerWeights:
    """The attention weights of one call of one layer.

    Attributes:
        name: The layer's name in the model, such as 'backbone.stages.2.blocks.1.attention'.
        weights: (Cw, Kh, Kw, Ho, Wo), float32.
        footprint: The layer's footprint, in pixels of its input map.
        map_size: Height and width of that map.
        image_size: Height and width of the image that the model was given.
        softmax: Whether weights are positive and sum to 1 (pairwise) or have either sign (patchwise).
    """

    name: str
    weights: Array
    footprint: Footprint
    map_size: tuple[int, int]
    image_size: tuple[int, int]
    softmax: bool

    @property
    def image_stride(self) -> int:
        """Image pixels between neighbours on the layer's input map."""
        return image_stride(self.image_size, self.map_size)

    @property
    def stage(self) -> str:
        """The layer's name up to its first number: 'backbone.stages.2', 'backbone.layer3'."""
        match = re.match(r"\D*\d+", self.name)
        return match.group() if match else self.name

    def kernels(self, pixel: Pixel) -> Array:
        """The weights (Cw, Kh, Kw) of the footprint on whose centre the image's pixel (x, y) lies.

        Raises:
            VisualizationError: The pixel lies outside of the image.
        """
        row, column = self._centre(pixel)
        return self.weights[..., row // self.footprint.stride[0], column // self.footprint.stride[1]]

    def on_image(self, kernel: Array, pixel: Pixel, image_size: Sequence[int]) -> Array:
        """A kernel (Kh, Kw) laid over the image where the footprint of ``pixel`` reads it: (H, W), 0 elsewhere.

        A tap beyond the border counts for the pixel that reflection reads there.
        """
        on_map = np.zeros(self.map_size, np.float32)
        (row, column), (height, width) = self._centre(pixel), self.map_size
        rows, inside_rows = self._taps(row // self.footprint.stride[0], 0, height)
        columns, inside_columns = self._taps(column // self.footprint.stride[1], 1, width)
        np.add.at(on_map, np.ix_(rows, columns), kernel * np.outer(inside_rows, inside_columns))
        spread = on_map.repeat(self.image_stride, axis=0).repeat(self.image_stride, axis=1)
        on_image = np.zeros(tuple(image_size), np.float32)
        part = spread[: image_size[0], : image_size[1]]
        on_image[: part.shape[0], : part.shape[1]] = part
        return on_image

    def box(self, pixel: Pixel) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the footprint in image pixels, beyond the border too."""
        row, column = self._centre(pixel)
        reach_rows, reach_columns = self.footprint.padding
        top, left = row - reach_rows, column - reach_columns
        bottom, right = row + reach_rows + 1, column + reach_columns + 1
        return left * self.image_stride, top * self.image_stride, right * self.image_stride, bottom * self.image_stride

    def _centre(self, pixel: Pixel) -> tuple[int, int]:
        """Row and column on the layer's input map of the footprint centre nearest to the image's pixel."""
        x, y = check_pixel(pixel, self.image_size)
        centre = []
        for position, size, stride in zip((y, x), self.map_size, self.footprint.stride, strict=True):
            on_map = min(position // self.image_stride, size - 1)  # pooling drops what is left over at the end
            centre.append(on_map // stride * stride)
        return centre[0], centre[1]

    def _taps(self, index: int, axis: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What the taps of the footprint number ``index`` read along an axis, and whether they read anything."""
        kernel_size, stride, dilation = (pair[axis] for pair in self.footprint[:3])
        padding = self.footprint.padding[axis]
        padded = index * stride + dilation * np.arange(kernel_size)
        source = bounce(size, padding, torch.device("cpu")).numpy()[padded]
        beyond = (padded < padding) | (padded >= size + padding)
        return source, ~(beyond & (self.footprint.padding_mode == "zeros"))


def attention_weights(model: nn.Module, image: Tensor) -> list[LayerWeights]:
    """The attention weights of every layer for one image, in the order in which the layers compute.

    The model computes in evaluation mode, without gradients, and is left as it was.

    Args:
        model: Any module with attention layers: a network of `sa_layers.models`, a backbone, or a model of mmseg,
            mmdet or mmpretrain, of which backbone and neck are looked at.
        image: What the backbone is called with, (C, H, W) or (1, C, H, W), normalised.

    Raises:
        VisualizationError: The model has no attention layers, or the image is not a normalised tensor.

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
    seen: list[LayerWeights] = []

    def see(name: str, features: Tensor, _: Tensor) -> None:
        layer = layers[name]
        weights = layer.weights(features)[0].unflatten(1, layer.footprint.kernel_size)
        seen.append(
            LayerWeights(
                name,
                weights.float().cpu().numpy(),
                layer.footprint,
                (features.shape[-2], features.shape[-1]),
                (image.shape[-2], image.shape[-1]),
                isinstance(layer, PairwiseSelfAttention),
            )
        )

    with in_evaluation_mode(model), torch.no_grad(), watching(dict(layers), see):
        compute_features(model, image)
    if not seen:
        raise VisualizationError(
            f"no attention layer of {type(model).__name__} computes features of the image: "
            "backbone and neck are looked at, not the head"
        )
    return seen


def last_of_each_stage(layers: Sequence[LayerWeights]) -> list[LayerWeights]:
    """One layer a stage, which is enough to draw."""
    return list({layer.stage: layer for layer in layers}.values())
