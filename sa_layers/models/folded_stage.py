"""A stage in evaluation, channels last: a linear layer into a new map, then blocks in place."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

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

    def evaluate(
        self, features: Tensor, pooled: bool = False, before: Epilogue | None = None, normed: bool = True
    ) -> Tensor:
        """(N, H, W, in_channels) -> (N, H // stride, W // stride, channels).

        Args:
            features: Those of the stage before.
            pooled: Whether they are pooled already. Defaults to False.
            before: The norm that they still lack. Defaults to None.
            normed: Whether the stage's own norm and ReLU come last. Defaults to True.
        """
        pixels = self.new_pixels(features, len(features), pooled)
        self.enter(features, pixels, pooled, before)
        del features  # a map less while the blocks compute
        self.attend(pixels, normed)
        return pixels

    def new_pixels(self, features: Tensor, batch: int, pooled: bool = False) -> Tensor:
        """An empty map of the stage for a batch of such features."""
        stride = 1 if pooled or self.stride is None else self.stride
        height, width = features.shape[1] // stride, features.shape[2] // stride
        return features.new_empty(batch, height, width, self.transition.channels)

    def enter(self, features: Tensor, pixels: Tensor, pooled: bool = False, before: Epilogue | None = None) -> None:
        """The pooling and the transition, into ``pixels``, behind what the features still lack."""
        project(features, self.transition, pixels, before=before, pools=self.stride == 2 and not pooled)

    def attend(self, pixels: Tensor, normed: bool = True) -> None:
        """The blocks, the norm and the ReLU, in place."""
        *blocks, last = self.blocks
        operands = last.new_operands(pixels)
        for block in blocks:
            block.add_residual(pixels, operands)
        last.add_residual(pixels, operands, self.norm if normed else None)
