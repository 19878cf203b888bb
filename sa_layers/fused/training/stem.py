"""The stem in training: a linear layer of the image, norm, ReLU and 2x2 max-pooling, without a map at full resolution.

The norm's statistics follow from mean and covariance of the image's few channels, and the sums of its gradient from
those of the winners of the pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...ops.stem_training import image_moments, stem_backward, stem_forward, stem_input_gradient
from ..channels_last import to_channels_first
from .attention import pixels_of
from .function import MAP, Gradients, Kept, Values, tensors_of
from .norm import NormState, TrainingNorm
from .unwritten_layer import mean_terms, output_moments


class StemState(NamedTuple):
    """What the backward pass needs besides the image."""

    norm: NormState
    mean: Tensor
    """(c,), float64: that of the image, or zeros."""
    covariance: Tensor | None
    """(C, c): that of the layer's output and the image, with batch statistics."""
    weight: Tensor
    """(C, c): the layer's weight with the norm's scale."""
    shift: Tensor


class StemStep(NamedTuple):
    """The stem and the pooling of the first stage, as a :class:`Step`."""

    linear: nn.Module
    norm: TrainingNorm

    def tensors(self) -> Values:
        """The parameters of the linear layer and of the norm."""
        return self.norm.tensors() | tensors_of("linear", self.linear)

    def forward(self, values: Values, *maps: Tensor) -> tuple[Tensor, Kept]:
        """(N, c, H, W) -> (N, C, H // 2, W // 2), channels last in memory."""
        (image,) = maps
        dtype = torch.promote_types(image.dtype, torch.float32)
        weight, bias = values["linear.weight"].flatten(1).double(), values.get("linear.bias")
        mean, covariance = weight.new_zeros(weight.shape[1]), None
        if self.norm.uses_batch_statistics():
            mean, covariance = image_moments(image)

        moments = None if covariance is None else output_moments(weight, bias, mean, covariance)

        def statistics() -> Tensor:
            assert moments is not None
            return moments.statistics

        state = self.norm.start(values, statistics, image[:, 0].numel(), image)
        scaled = (weight * state.scale.unsqueeze(1)).to(dtype)
        shift = (state.shift if bias is None else state.shift + state.scale * bias).to(dtype)
        output = stem_forward(image, scaled, shift)
        return to_channels_first(output), Kept(
            [image], StemState(state, mean, moments and moments.covariance, scaled, shift)
        )

    def backward(
        self, values: Values, kept: Kept, grad: Tensor, needed: frozenset[str]
    ) -> tuple[Sequence[Tensor | None], Gradients]:
        """Compute the gradients of the parameters, and of the image if it is needed."""
        (image,), state = kept.maps, kept.state
        norm, mean, covariance, scaled, shift = state
        weight, bias = values["linear.weight"].flatten(1).double(), values.get("linear.bias")
        of_pooled = pixels_of(grad)
        sums = stem_backward(of_pooled, image, scaled, shift, mean)
        of_output, of_products = sums[0], sums[1:].t()  # sum d, and sum d (x - mean) for each channel of the image
        offset = weight @ mean - norm.mean if bias is None else weight @ mean + bias - norm.mean
        of_normed = (weight * of_products).sum(1) + offset * of_output
        of_norm = self.norm.gradients(norm, torch.stack([of_output, of_normed]))
        of_weight = of_products + torch.outer(of_output, mean)
        of_bias, matrix, constants = of_output, None, None
        if covariance is not None:
            terms = mean_terms(weight, norm.scale, of_norm.means, offset, mean, covariance, image[:, 0].numel())
            of_weight, of_bias = of_weight + terms.weight, of_bias + terms.bias
            matrix, constants = terms.matrix, terms.offset
        gradients = of_norm.tensors
        gradients |= {"linear.weight": norm.scale.unsqueeze(1) * of_weight, "linear.bias": norm.scale * of_bias}
        of_image = None
        if f"{MAP}0" in needed:
            of_image = stem_input_gradient(of_pooled, image, scaled, shift, mean, matrix, constants)
        return [of_image], gradients
