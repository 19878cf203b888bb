"""A stage in evaluation, channels last: a linear layer into a new map, then blocks in place."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ..layers.evaluation import map_of, pixels_of
from ..layers.folded_block import FoldedBlock
from ..ops import Epilogue
from ..ops.projection import Linear, project


class FoldedStage(NamedTuple):
    """A :class:`SelfAttentionStage` with frozen norms."""

    stride: int | None
    """2 or 1; None where the pooling is a module that must be called."""
    transition: Linear
    blocks: list[FoldedBlock]
    norm: Epilogue

    def pool(self, features: Tensor) -> Tensor:
        """(N, H, W, in_channels) -> (N, H // stride, W // stride, in_channels)."""
        return features if self.stride == 1 else pixels_of(F.max_pool2d(map_of(features), 2))

    def new_pixels(self, pooled: Tensor) -> Tensor:
        """An empty map of the stage: (N, H, W, in_channels) -> (N, H, W, channels)."""
        return pooled.new_empty(*pooled.shape[:3], self.transition.channels)

    def evaluate(self, pooled: Tensor) -> Tensor:
        """All that comes after the pooling: (N, H, W, in_channels) -> (N, H, W, channels)."""
        pixels = self.new_pixels(pooled)
        self.enter(pooled, pixels)
        del pooled  # a map less while the blocks compute
        self.attend(pixels)
        return pixels

    def enter(self, pooled: Tensor, pixels: Tensor) -> None:
        """The transition, into ``pixels``."""
        project(pooled, self.transition, pixels)

    def attend(self, pixels: Tensor) -> None:
        """The blocks, the norm and the ReLU, in place."""
        *blocks, last = self.blocks
        operands = last.new_operands(pixels)
        for block in blocks:
            block.add_residual(pixels, operands)
        last.add_residual(pixels, operands, self.norm)
