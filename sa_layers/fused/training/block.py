"""The residual block in training, channels last.

Forward, it computes::

    qkv = relu(norm1(x)) @ transforms        # the norm and the ReLU are the prologue of the product
    o   = attention(q, k, v)
    y   = x + relu(norm2(o)) @ expansion     # likewise, and the residual is its epilogue

and keeps x, qkv, o and what the attention keeps. Backward, the products with transposed weights have the mask of the
ReLU and the sums of the norm's gradient as their epilogues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...ops.linear_training import linear_backward_input, linear_backward_weight, linear_forward
from ...ops.norm_training import channel_statistics, norm_backward
from ..channels_last import to_channels_first
from .attention import AttentionTraining, Operands, pixels_of
from .function import MAP, Gradients, Kept, Values, tensors_of
from .norm import NormState, TrainingNorm


class BlockState(NamedTuple):
    """What the backward pass needs besides maps."""

    first: NormState
    second: NormState
    attention: Any


class BlockStep(NamedTuple):
    """A :class:`sa_layers.layers.SelfAttentionBlock` in training, as a :class:`Step`."""

    first_norm: TrainingNorm
    transforms: Sequence[nn.Module]
    """φ, ψ and β; shared ones once."""
    attention: AttentionTraining
    second_norm: TrainingNorm
    expansion: nn.Module
    adds_input: bool = True
    """Whether the output includes the input of the block, and not only the residual."""

    def tensors(self) -> Values:
        """All parameters of the block."""
        values = {**self.first_norm.tensors(), **self.second_norm.tensors()}
        for name, module in self._linear().items():
            values |= tensors_of(name, module)
        return values | {f"attention.{name}": value for name, value in self.attention.tensors().items()}

    def _linear(self) -> dict[str, nn.Module]:
        transforms = {f"transform{index}": module for index, module in enumerate(self.transforms)}
        return {**transforms, "expansion": self.expansion}

    def forward(self, values: Values, *maps: Tensor) -> tuple[Tensor, Kept]:
        """(N, C, H, W) -> (N, C, H, W), channels last in memory."""
        (features,) = maps
        pixels = pixels_of(features).contiguous()
        count = pixels.shape[:3].numel()
        first = self.first_norm.start(values, lambda: channel_statistics(pixels), count, pixels)
        weights, biases = self._transforms(values)
        transformed = linear_forward(pixels, weights, biases, first.prologue)
        operands = self._operands(transformed)
        attended, kept, attention = self.attention.forward(of_attention(values), operands)
        second = self.second_norm.start(values, lambda: channel_statistics(attended), count, pixels)
        expansion = [values["expansion.weight"]], [values.get("expansion.bias")]
        output = linear_forward(attended, *expansion, second.prologue, pixels if self.adds_input else None)
        return to_channels_first(output), Kept([pixels, transformed, *kept], BlockState(first, second, attention))

    def backward(
        self, values: Values, kept: Kept, grad: Tensor, needed: frozenset[str]
    ) -> tuple[Sequence[Tensor | None], Gradients]:
        """Compute the gradient of the input, and those of the parameters."""
        pixels, transformed, *rest = kept.maps
        state: BlockState = kept.state
        attended = rest[0]
        grad = pixels_of(grad)
        prologue = state.second.prologue
        gradients: Gradients = {}
        if "expansion.weight" in needed or "expansion.bias" in needed:
            sizes, biased = [grad.shape[3]], "expansion.bias" in values
            of_weight, of_bias = linear_backward_weight(grad, attended, prologue, sizes, biased)
            gradients["expansion.weight"] = of_weight[0]
            gradients["expansion.bias"] = of_bias[0] if biased else None
        of_attended, sums = linear_backward_input(
            grad, [values["expansion.weight"]], attended, prologue, state.second.mean
        )
        assert sums is not None  # with a prologue
        of_norm = self.second_norm.gradients(state.second, sums)
        gradients |= of_norm.tensors
        norm_backward(of_attended, attended, of_norm.factors, of_attended)

        operands, of_transformed = self._operands(transformed), torch.empty_like(transformed)
        out, shared = self._gradient_operands(of_transformed)
        of_attention_tensors = self.attention.backward(
            of_attention(values), rest, state.attention, of_attended, operands, out
        )
        gradients |= {f"attention.{name}": value for name, value in of_attention_tensors.items()}
        for into, extra in shared:
            into += extra

        prologue = state.first.prologue
        weights, biases = self._transforms(values)
        sizes, biased = [len(weight) for weight in weights], any(bias is not None for bias in biases)
        if any(f"transform{index}.{part}" in needed for index in range(len(weights)) for part in PARTS):
            of_weights, of_biases = linear_backward_weight(of_transformed, pixels, prologue, sizes, biased)
            for index, of_weight_ in enumerate(of_weights):
                gradients[f"transform{index}.weight"] = of_weight_
                gradients[f"transform{index}.bias"] = of_biases[index] if biased else None
        if not needed & {f"{MAP}0", f"{self.first_norm.name}.weight", f"{self.first_norm.name}.bias"}:
            return [None], gradients
        of_pixels, sums = linear_backward_input(of_transformed, weights, pixels, prologue, state.first.mean)
        assert sums is not None
        of_norm = self.first_norm.gradients(state.first, sums)
        gradients |= of_norm.tensors
        norm_backward(of_pixels, pixels, of_norm.factors, of_pixels, grad if self.adds_input else None)
        return [to_channels_first(of_pixels)], gradients

    def _transforms(self, values: Values) -> tuple[list[Tensor], list[Tensor | None]]:
        names = [f"transform{index}" for index in range(len(self.transforms))]
        return [values[f"{name}.weight"] for name in names], [values.get(f"{name}.bias") for name in names]

    def _operands(self, transformed: Tensor) -> Operands:
        """Query, key and value as channels of the output of the transforms."""
        parts = transformed.split([len(module.weight) for module in self.transforms], dim=3)  # type: ignore[arg-type]
        return Operands(parts[0], parts[1] if len(parts) == 3 else parts[0], parts[-1])

    def _gradient_operands(self, gradient: Tensor) -> tuple[Operands, list[tuple[Tensor, Tensor]]]:
        """Maps of their own for the gradients of shared transforms, and where to add them."""
        query, key, value = self._operands(gradient)
        shared = []
        if len(self.transforms) < 3:
            key = torch.empty_like(query)
            shared.append((query, key))
        if len(self.transforms) == 1:
            value = torch.empty_like(query)
            shared.append((query, value))
        return Operands(query, key, value), shared


PARTS = ("weight", "bias")


def of_attention(values: Values) -> Values:
    """The tensors of the attention among those of the block."""
    return {name.removeprefix("attention."): value for name, value in values.items() if name.startswith("attention.")}
