"""What stands between the blocks of two stages, in training: norm, ReLU, pooling and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...ops.affine_relu import affine_relu
from ...ops.linear_training import linear_backward_input, linear_backward_weight, linear_forward
from ...ops.norm_training import (
    channel_statistics,
    mask_and_sum,
    max_pooling,
    max_pooling_backward,
    max_pooling_sums,
    norm_backward,
)
from ..channels_last import to_channels_first
from .attention import pixels_of
from .function import MAP, Gradients, Kept, Values, tensors_of
from .norm import NormState, TrainingNorm


class TransitionStep(NamedTuple):
    """The norm and the ReLU after a stage's blocks, the pooling and the transition of the next, as a :class:`Step`."""

    norm: TrainingNorm | None
    """None if the input is what a stage returns, behind its norm and ReLU."""
    pools: bool
    """Whether 2x2 max-pooling precedes the transition."""
    transition: nn.Module

    def tensors(self) -> Values:
        """The parameters of norm and transition."""
        values = {} if self.norm is None else self.norm.tensors()
        return values | tensors_of("transition", self.transition)

    def forward(self, values: Values, *maps: Tensor) -> tuple[Tensor, Kept]:
        """(N, C, H, W) -> (N, D, H, W) or (N, D, H // 2, W // 2), channels last in memory."""
        pixels = pixels_of(maps[0]).contiguous()
        state = None
        if self.norm is not None:
            state = self.norm.start(values, lambda: channel_statistics(pixels), pixels.shape[:3].numel(), pixels)
        prologue = None if state is None else state.prologue
        features, kept = pixels, [pixels]
        if self.pools:
            features = max_pooling(pixels, prologue and prologue.scale, prologue and prologue.shift)
            kept, prologue = [pixels, features], None
        layer = [values["transition.weight"]], [values.get("transition.bias")]
        output = linear_forward(features, *layer, prologue)
        return to_channels_first(output.contiguous()), Kept(kept, state)

    def backward(
        self, values: Values, kept: Kept, grad: Tensor, needed: frozenset[str]
    ) -> tuple[Sequence[Tensor | None], Gradients]:
        """Compute the gradients of the input and of the parameters."""
        pixels, state = kept.maps[0], kept.state
        grad, gradients = pixels_of(grad), Gradients()
        prologue = None if state is None else state.prologue
        if any(name.startswith("transition") for name in needed):
            features, before = (kept.maps[1], None) if self.pools else (pixels, prologue)
            biased = "transition.bias" in values
            weight, bias = linear_backward_weight(grad, features, before, [grad.shape[3]], biased)
            gradients |= {"transition.weight": weight[0], "transition.bias": bias[0] if biased else None}
        if not needed - {"transition.weight", "transition.bias"}:
            return [None], gradients
        weights = [values["transition.weight"]]
        if not self.pools:
            before = prologue
            of_input, sums = linear_backward_input(grad, weights, pixels, before, None if state is None else state.mean)
            if state is not None and sums is not None:
                gradients |= self._norm_backward(state, sums, of_input, pixels)
            return [to_channels_first(of_input)], gradients
        of_pooled, _ = linear_backward_input(grad, weights)
        of_input = torch.empty_like(pixels)
        if self.norm is None or state is None:
            max_pooling_backward(of_pooled, pixels, None, None, None, of_input)
            return [to_channels_first(of_input)], gradients
        assert prologue is not None
        sums = max_pooling_sums(of_pooled, pixels, prologue.scale, prologue.shift, state.mean)
        of_norm = self.norm.gradients(state, sums)
        max_pooling_backward(of_pooled, pixels, prologue.scale, prologue.shift, of_norm.factors, of_input)
        return [to_channels_first(of_input)], gradients | of_norm.tensors

    def _norm_backward(self, state: NormState, sums: Tensor, gradient: Tensor, pixels: Tensor) -> Gradients:
        assert self.norm is not None
        of_norm = self.norm.gradients(state, sums)
        norm_backward(gradient, pixels, of_norm.factors, gradient)
        return of_norm.tensors


class NormStep(NamedTuple):
    """A norm and a ReLU, as a :class:`Step`."""

    norm: TrainingNorm

    def tensors(self) -> Values:
        """The parameters of the norm."""
        return self.norm.tensors()

    def forward(self, values: Values, *maps: Tensor) -> tuple[Tensor, Kept]:
        """(N, C, H, W) -> (N, C, H, W), channels last in memory."""
        pixels = pixels_of(maps[0]).contiguous()
        state = self.norm.start(values, lambda: channel_statistics(pixels), pixels.shape[:3].numel(), pixels)
        output = affine_relu(pixels, *state.prologue)
        return to_channels_first(output), Kept([pixels], state)

    def backward(
        self, values: Values, kept: Kept, grad: Tensor, needed: frozenset[str]
    ) -> tuple[Sequence[Tensor | None], Gradients]:
        """Compute the gradients of the input and of the norm."""
        (pixels,), state = kept.maps, kept.state
        prologue = state.prologue
        of_input = torch.empty_like(pixels).copy_(grad.permute(0, 2, 3, 1))
        sums = mask_and_sum(of_input, pixels, prologue.scale, prologue.shift, state.mean)
        of_norm = self.norm.gradients(state, sums)
        if f"{MAP}0" in needed:
            norm_backward(of_input, pixels, of_norm.factors, of_input)
        return [to_channels_first(of_input)], of_norm.tensors
