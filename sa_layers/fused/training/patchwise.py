"""Patchwise attention in training: a small map of hidden features between two sweeps over footprints."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...ops import Footprint
from ...ops.norm_training import channel_statistics, mask_and_sum, norm_backward
from ...ops.patchwise_training import (
    patchwise_backward,
    patchwise_forward,
    patchwise_hidden,
    patchwise_hidden_backward,
    patchwise_norm_backward,
    patchwise_statistics,
)
from .attention import Operands
from .function import Gradients, Values, tensors_of
from .norm import NormState, TrainingNorm


class PatchwiseState(NamedTuple):
    """What the backward pass needs besides maps."""

    first: NormState
    second: NormState
    shift2: Tensor
    """(Cw,), float64: the shift of the hidden features without the first layer's bias."""


class PatchwiseTraining(NamedTuple):
    """The plan of patchwise attention behind its transforms."""

    footprint: Footprint
    relation: str
    first_norm: TrainingNorm
    second_norm: TrainingNorm
    layers: tuple[nn.Module, nn.Module]

    def tensors(self) -> Values:
        """The parameters of the mapping."""
        values = {**self.first_norm.tensors(), **self.second_norm.tensors()}
        return values | tensors_of("layer1", self.layers[0]) | tensors_of("layer2", self.layers[1])

    def forward(self, values: Values, operands: Operands) -> tuple[Tensor, list[Tensor], Any]:
        """(N, H, W, Cr) twice and (N, H, W, C) -> (N, Ho, Wo, C), and what is kept."""
        query, key, value = operands
        dtype = torch.promote_types(query.dtype, torch.float32)
        height, width = self.footprint.output_size(query.shape[1], query.shape[2])
        count, bias1 = query.shape[0] * height * width, values.get("layer1.bias")
        first = self.first_norm.start(
            values, lambda: patchwise_statistics(query, key, self.footprint, self.relation), count, query
        )
        weight1 = values["layer1.weight"].flatten(1).to(dtype)
        hidden = patchwise_hidden(query, key, self.footprint, self.relation, *first.prologue, weight1)

        def statistics() -> Tensor:
            mean, variance = channel_statistics(hidden)
            return torch.stack([mean if bias1 is None else mean + bias1, variance])

        second = self.second_norm.start(values, statistics, count, query)
        shift2 = second.shift if bias1 is None else second.shift + second.scale * bias1
        scale_and_shift = second.scale.to(dtype), shift2.to(dtype)
        output = patchwise_forward(hidden, value, self.footprint, *scale_and_shift, *self._second_layer(values, dtype))
        return output, [output, hidden], PatchwiseState(first, second, shift2)

    def backward(
        self, values: Values, kept: list[Tensor], state: PatchwiseState, grad: Tensor, operands: Operands, out: Operands
    ) -> Gradients:
        """Write the gradients of the operands into ``out``, and return those of the tensors."""
        query, key, value = operands
        hidden, (first, second, shift2) = kept[1], state
        dtype, bias1 = hidden.dtype, values.get("layer1.bias")
        scale_and_shift = second.scale.to(dtype), shift2.to(dtype)
        layer2 = self._second_layer(values, dtype)
        of_hidden, of_weight2, of_bias2 = patchwise_backward(
            grad, hidden, value, self.footprint, *scale_and_shift, *layer2, out.value
        )
        mean = second.mean if bias1 is None else second.mean - bias1
        sums = mask_and_sum(of_hidden, hidden, *scale_and_shift, mean)
        second_gradient = self.second_norm.gradients(second, sums)
        factors = second_gradient.factors
        if bias1 is not None and not second.is_frozen:  # the norm's input is hidden + bias1
            factors = factors.clone()
            factors[2] += factors[1] * bias1
        norm_backward(of_hidden, hidden, factors, of_hidden)
        of_weight1, features = patchwise_hidden_backward(
            of_hidden,
            query,
            key,
            self.footprint,
            self.relation,
            *first.prologue,
            first.mean,
            values["layer1.weight"].flatten(1).to(dtype),
            out.query,
            out.key,
        )
        first_gradient = self.first_norm.gradients(first, features)
        if not first.is_frozen:
            factors = first.scale * first_gradient.means
            patchwise_norm_backward(query, key, self.footprint, self.relation, first.mean, factors, out.query, out.key)
        gradients: Gradients = {**first_gradient.tensors, **second_gradient.tensors}
        gradients |= {"layer1.weight": of_weight1, "layer2.weight": of_weight2, "layer2.bias": of_bias2}
        if bias1 is not None:
            gradients["layer1.bias"] = of_hidden.double().sum((0, 1, 2))
        return gradients

    def _second_layer(self, values: Values, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        weight, bias = values["layer2.weight"].flatten(1).to(dtype), values.get("layer2.bias")
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.to(dtype)
