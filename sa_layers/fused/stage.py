"""The stage in evaluation, channels last: a linear layer into a new map, then blocks in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import AffineReLU
from ..ops.projection import Linear, project
from .block import EvaluationBlock


class EvaluationStage(NamedTuple):
    """A stage of :class:`sa_layers.models.SelfAttentionNetwork` with frozen norms."""

    stride: int | None
    """2 or 1; None if the pooling is a module that must be called."""
    transition: Linear
    blocks: list[EvaluationBlock]
    norm: AffineReLU

    @classmethod
    def of_blocks(
        cls,
        stride: int | None,
        transition: Linear,
        bias: Tensor | None,
        blocks: Sequence[EvaluationBlock],
        norm: AffineReLU,
    ) -> EvaluationStage:
        """Moves the biases of the transition and of every block into the norms that follow them.

        Args:
            stride: 2, 1 or None.
            transition: Without a bias.
            bias: Of the transition, (C,), or None.
            blocks: In their order.
            norm: Of the stage.
        """
        offset = torch.zeros_like(norm.shift) if bias is None else bias
        shifted = []
        for block in blocks:
            shifted.append(block.with_input_offset(offset))
            offset = offset + block.bias
        return cls(stride, transition, shifted, AffineReLU(norm.scale, torch.addcmul(norm.shift, norm.scale, offset)))

    def evaluate(
        self, features: Tensor, pooled: bool = False, prologue: AffineReLU | None = None, normed: bool = True
    ) -> Tensor:
        """(N, H, W, in_channels) -> (N, H // stride, W // stride, channels).

        Args:
            features: The output of the previous stage.
            pooled: Whether it is pooled already. Defaults to False.
            prologue: The norm of the previous stage, if it was not applied. Defaults to None.
            normed: Whether to apply the stage's own norm and ReLU. Defaults to True.
        """
        pixels = self.new_pixels(features, len(features), pooled)
        self.enter(features, pixels, pooled, prologue)
        del features  # frees a map before the blocks allocate theirs
        self.attend(pixels, normed)
        return pixels

    def new_pixels(self, features: Tensor, batch: int, pooled: bool = False) -> Tensor:
        """Allocates the stage's map for a batch of such features."""
        stride = 1 if pooled or self.stride is None else self.stride
        height, width = features.shape[1] // stride, features.shape[2] // stride
        return features.new_empty(batch, height, width, self.transition.channels)

    def enter(self, features: Tensor, pixels: Tensor, pooled: bool = False, prologue: AffineReLU | None = None) -> None:
        """Computes the prologue, the pooling and the transition into ``pixels``."""
        project(features, self.transition, pixels, prologue=prologue, pool=self.stride == 2 and not pooled)

    def attend(self, pixels: Tensor, normed: bool = True) -> None:
        """Computes the blocks, then the norm and the ReLU unless ``normed`` is False, in place."""
        *blocks, last = self.blocks
        operands = last.new_operands(pixels)
        for block in blocks:
            block.add_residual(pixels, operands)
        last.add_residual(pixels, operands, self.norm if normed else None)
