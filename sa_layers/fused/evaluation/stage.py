"""The stage in evaluation, channels last: a linear layer into a new map, then blocks in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops import AffineReLU
from ...ops.projection import Linear, join, project
from ..channels_last import to_channels_first, to_channels_last
from .block import EvaluationBlock
from .parameters import Folded


class EvaluationStage(NamedTuple):
    """The plan of a stage of :class:`sa_layers.models.SelfAttentionNetwork` with frozen norms."""

    stride: int
    """2 or 1: that of the pooling, which is part of the transition."""
    pool: Callable[[Tensor], Tensor] | None
    """A pooling that must be called before the transition instead; the stride is 1 then."""
    transition: Linear
    blocks: list[EvaluationBlock]
    norm: int
    """The number of the stage's own norm, whose ReLU follows it."""

    def evaluate(self, folded: Folded, features: Tensor) -> Iterator[Tensor]:
        """Yield (N, H // stride, W // stride, channels) for (N, in_channels, H, W)."""
        pixels = to_channels_last(features)
        if self.pool is not None:
            pixels = to_channels_last(self.pool(to_channels_first(pixels)))
        yield self.prepared(folded).compute(pixels, folded)

    def sizes(self, features: Tensor) -> Iterator[tuple[int, ...]]:
        """Yield the shape of what :meth:`evaluate` yields, if there is no pooling to be called."""
        height, width = features.shape[2:]
        yield features.shape[0], height // self.stride, width // self.stride, self.transition.channels

    def prepared(self, folded: Folded) -> EvaluationStage:
        """The stage for one call: the bias of every block's expansion is in the norms that follow it.

        Weights that are read together are also joined, for all blocks at once.
        """
        self._move_biases(folded)
        transforms = join([block.transform for block in self.blocks])
        if transforms[0] is self.blocks[0].transform:
            return self
        pairs = zip(self.blocks, transforms, strict=True)
        return self._replace(blocks=[block._replace(transform=transform) for block, transform in pairs])

    def _move_biases(self, folded: Folded) -> None:
        offset: Tensor | None = None
        for number, bias in zip(self._norms_of_input(), self._biases(), strict=True):
            if offset is not None:
                scale, shift = folded.norms[number]
                folded.norms[number] = AffineReLU(scale, torch.addcmul(shift, scale, offset))
            if bias is not None:
                offset = bias if offset is None else offset + bias

    def _norms_of_input(self) -> list[int]:
        """The norms that read the sum of the residuals, in order."""
        return [*(block.prologue for block in self.blocks), self.norm]

    def _biases(self) -> list[Tensor | None]:
        """What each of these norms has to add for those that follow."""
        return [*(block.expansion.biases[0] for block in self.blocks), None]

    def compute(
        self,
        features: Tensor,
        folded: Folded,
        pooled: bool = False,
        prologue: AffineReLU | None = None,
        normed: bool = True,
    ) -> Tensor:
        """(N, H, W, in_channels) -> (N, H // stride, W // stride, channels).

        Args:
            features: The output of the previous stage.
            folded: The norms and positions of this call, after :meth:`prepared`.
            pooled: Whether the features are pooled already. Defaults to False.
            prologue: The norm of the previous stage, if it was not applied. Defaults to None.
            normed: Whether to apply the stage's own norm and ReLU. Defaults to True.
        """
        pixels = self.new_pixels(features, len(features), pooled)
        self.enter(features, pixels, pooled, prologue)
        del features  # frees a map before the blocks allocate theirs
        self.attend(pixels, folded, normed)
        return pixels

    def new_pixels(self, features: Tensor, batch: int, pooled: bool = False) -> Tensor:
        """Allocates the stage's map for a batch of such features."""
        stride = 1 if pooled else self.stride
        height, width = features.shape[1] // stride, features.shape[2] // stride
        return features.new_empty(batch, height, width, self.transition.channels)

    def enter(self, features: Tensor, pixels: Tensor, pooled: bool = False, prologue: AffineReLU | None = None) -> None:
        """Computes the prologue, the pooling and the transition into ``pixels``."""
        project(features, self.transition, pixels, prologue=prologue, pool=self.stride == 2 and not pooled)

    def attend(self, pixels: Tensor, folded: Folded, normed: bool = True) -> None:
        """Computes the blocks, then the norm and the ReLU unless ``normed`` is False, in place."""
        *blocks, last = self.blocks
        operands = last.new_operands(pixels)
        for block in blocks:
            block.add_residual(pixels, operands, folded)
        last.add_residual(pixels, operands, folded, folded.norms[self.norm] if normed else None)
