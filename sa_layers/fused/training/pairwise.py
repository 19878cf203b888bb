"""Pairwise attention in training: the passes over pairs, and the small matrices between them.

The equations are those of docs/training.md. A pass reads query and key and forms the features of a few pairs at a time;
between passes only sums over all pairs exist, in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...ops import Footprint, PairPosition
from ...ops.pairwise_training import (
    pairwise_backward,
    pairwise_correction,
    pairwise_forward,
    pairwise_moments,
    pairwise_norm_backward,
    pairwise_statistics,
)
from ...ops.pairwise_training_operands import PairwiseGeometry, PairwiseMapping
from ..position import position_matrices
from .attention import Operands
from .function import Gradients, Values, tensors_of
from .norm import NormState, TrainingNorm
from .unwritten_layer import mean_terms, output_moments


class PositionPlan(NamedTuple):
    """A position encoding by its linear layer."""

    linear: nn.Module
    kind: str
    """'relative' or 'absolute'."""
    size: tuple[int, int] | None


class PairwiseState(NamedTuple):
    """What the backward pass needs besides maps."""

    geometry: PairwiseGeometry
    mapping: PairwiseMapping
    first: NormState
    second: NormState
    covariance: Tensor | None
    """(R', D): that of the first layer's outputs and inputs, with batch statistics of the second norm."""
    pairs: int


class PairwiseTraining(NamedTuple):
    """The plan of pairwise attention behind its transforms."""

    footprint: Footprint
    relation: str
    position: PositionPlan | None
    first_norm: TrainingNorm
    second_norm: TrainingNorm
    layers: tuple[nn.Module, nn.Module]

    def tensors(self) -> Values:
        """The parameters of the mapping and of the position encoding."""
        values = {**self.first_norm.tensors(), **self.second_norm.tensors()}
        values |= tensors_of("layer1", self.layers[0]) | tensors_of("layer2", self.layers[1])
        return values if self.position is None else values | tensors_of("position", self.position.linear)

    def forward(self, values: Values, operands: Operands) -> tuple[Tensor, list[Tensor], Any]:
        """(N, H, W, Cr) twice and (N, H, W, C) -> (N, Ho, Wo, C), and what is kept."""
        query, key, value = operands
        dtype = torch.promote_types(query.dtype, torch.float32)
        position, offset = self._position(values, dtype)
        geometry = PairwiseGeometry(self.footprint, self.relation, position)
        height, width = self.footprint.output_size(query.shape[1], query.shape[2])
        pairs = query.shape[0] * height * width * self.footprint.taps
        weight1, bias1 = values["layer1.weight"].flatten(1), values.get("layer1.bias")
        weight2 = values["layer2.weight"].flatten(1)

        def statistics_of_features() -> Tensor:
            mean, variance = pairwise_statistics(query, key, geometry)
            return torch.stack([_add_to_end(mean, offset), variance])

        first = self.first_norm.start(values, statistics_of_features, pairs, query)
        scale1, shift1 = first.prologue
        if offset is not None:
            shift1 = _add_to_end(first.shift, first.scale[-len(offset) :] * offset).to(dtype)
        center, covariance, statistics = torch.zeros_like(first.scale), None, first.folded
        if self.second_norm.uses_batch_statistics():
            center, moments = pairwise_moments(query, key, geometry, scale1, shift1)
            statistics, covariance = output_moments(weight1.double(), bias1, center, moments)
        second = self.second_norm.start(values, lambda: statistics, pairs, query)
        shift2 = second.shift if bias1 is None else second.shift + second.scale * bias1
        mapping = PairwiseMapping(
            scale1,
            shift1,
            _add_to_end(first.mean, None if offset is None else -offset),
            center,
            weight1.to(dtype),
            second.scale,
            shift2,
            weight2.to(dtype),
        )
        output, logsumexp = pairwise_forward(query, key, value, geometry, mapping)
        state = PairwiseState(geometry, mapping, first, second, covariance, pairs)
        return output, [output, logsumexp], state

    def backward(
        self, values: Values, kept: list[Tensor], state: PairwiseState, grad: Tensor, operands: Operands, out: Operands
    ) -> Gradients:
        """Write the gradients of the operands into ``out``, and return those of the tensors."""
        output, logsumexp = kept
        geometry, mapping, first, second, covariance, pairs = state
        query, key, value = operands
        weight1, bias1 = values["layer1.weight"].flatten(1).double(), values.get("layer1.bias")
        sums = pairwise_backward(grad, query, key, value, output, logsumexp, geometry, mapping, *out)
        mean2 = second.mean if bias1 is None else second.mean - bias1
        # of the hidden features z without their bias: sum dy (z - mean), from sums of dy and of dy (a - center)^T
        offset = weight1 @ mapping.center - mean2
        products = (weight1 * sums.products).sum(1) + offset * sums.hidden
        second_gradient = self.second_norm.gradients(second, torch.stack([sums.hidden, products]))
        features, position = sums.features, sums.position
        of_weight1 = sums.products + torch.outer(sums.hidden, mapping.center)
        of_bias1 = sums.hidden
        if covariance is not None:
            terms = mean_terms(weight1, second.scale, second_gradient.means, offset, mapping.center, covariance, pairs)
            of_weight1, of_bias1 = of_weight1 + terms.weight, of_bias1 + terms.bias
            added_features, added_position = pairwise_correction(
                query, key, geometry, mapping, terms.matrix, terms.offset, out.query, out.key
            )
            features = features + added_features
            position = _sum(position, added_position)
        first_gradient = self.first_norm.gradients(first, features)
        if not first.is_frozen:
            factors = first.scale * first_gradient.means
            added_position = pairwise_norm_backward(query, key, geometry, mapping, factors, out.query, out.key)
            position = _sum(position, added_position)
        gradients: Gradients = {
            **first_gradient.tensors,
            **second_gradient.tensors,
            "layer1.weight": second.scale.unsqueeze(1) * of_weight1,
            "layer1.bias": second.scale * of_bias1,
            "layer2.weight": sums.weight2,
            "layer2.bias": sums.weight2.new_zeros(len(sums.weight2)),  # it cancels in the softmax
        }
        if position is not None:
            gradients |= self._position_gradients(position)
        return gradients

    def _position(self, values: Values, dtype: torch.dtype) -> tuple[PairPosition | None, Tensor | None]:
        """The matrices of the position, without the constants that the first norm subtracts, and these constants.

        A constant that is far larger than the differences between positions would cost their precision.
        """
        if self.position is None:
            return None, None
        matrix = torch.cat([values["position.weight"].flatten(1), values["position.bias"].unsqueeze(1)], dim=1)
        query, key = (matrices.contiguous() for matrices in position_matrices(matrix.to(dtype), self.position.kind))
        offset = None
        if self.position.kind == "absolute":
            constant = [query] if self.footprint.padding_mode == "zeros" else [query, key]  # a zero is not constant
            offset = torch.stack([matrices[:, 2] for matrices in constant]).sum(0).double()
            for matrices in constant:
                matrices[:, 2] = 0
        return PairPosition(query, key, self.position.size), offset

    def _position_gradients(self, gradient: Tensor) -> Gradients:
        """From the gradients of the two matrices, (2, P, 3), to those of the linear layer."""
        assert self.position is not None
        of_query, of_key = gradient
        if self.position.kind == "relative":
            matrix = of_query - of_key
        else:
            half = len(of_query) // 2
            matrix = of_query[:half] + of_key[half:]
        weight, bias = matrix[:, :2], matrix[:, 2]
        if self.position.kind == "relative" and self.footprint.padding_mode == "reflect":
            bias = torch.zeros_like(bias)  # it cancels in every pair
        return {"position.weight": weight, "position.bias": bias}


def _sum(one: Tensor | None, two: Tensor | None) -> Tensor | None:
    return one if two is None else two if one is None else one + two


def _add_to_end(vector: Tensor, offset: Tensor | None) -> Tensor:
    """Add to the last channels, those of the position."""
    if offset is None:
        return vector
    return torch.cat([vector[: -len(offset)], vector[-len(offset) :] + offset])
