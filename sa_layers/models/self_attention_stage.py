"""One stage of a self-attention network: halve the map, widen it linearly, attend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import SelfAttentionBlock
from ..layers.evaluation import affine, in_layout_of, is_taken, is_watched, map_of, pixels_of, why_not_passed_over
from ..layers.folding import FoldingModule
from ..layers.mapping import ActLayer, NormLayer
from ..ops import Epilogue
from ..ops.projection import pack
from .folded_stage import FoldedStage


class SelfAttentionStage(FoldingModule[FoldedStage]):
    """Max-pooling, linear transition to the stage's width, residual blocks, norm and activation.

    Args:
        in_channels: Channels of the previous stage.
        channels: Channels of this one.
        blocks: The number of residual blocks.
        kernel_size: Taps of the footprint.
        stride: 2 to pool, 1 not to.
        norm_layer: Makes a normalisation for a number of channels.
        act_layer: Makes an activation.
        with_cp: Whether blocks recompute their activations in the backward pass, to save memory. Defaults to False.
        **block_options: Further arguments of :class:`SelfAttentionBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        blocks: int,
        kernel_size: int,
        stride: int,
        *,
        norm_layer: NormLayer,
        act_layer: ActLayer,
        with_cp: bool = False,
        **block_options: Any,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"strides must be 1 or 2, got {stride!r}")
        self.with_cp = with_cp
        self.pool = nn.MaxPool2d(2) if stride == 2 else nn.Identity()
        self.transition = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(channels, kernel_size, norm_layer=norm_layer, act_layer=act_layer, **block_options)
            for _ in range(blocks)
        )
        self.norm = norm_layer(channels)
        self.act = act_layer()

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H // stride, W // stride)."""
        if (folded := self.evaluated(features)) is not None:
            pixels, pooled = pixels_of(features), folded.stride is None
            if pooled:
                pixels = pixels_of(self.pool(map_of(pixels)))
            return in_layout_of(features, map_of(folded.evaluate(pixels, pooled)))
        features = self.transition(self.pool(features))
        for block in self.blocks:
            if self.with_cp and features.requires_grad:
                features = checkpoint(block, features, use_reentrant=False)
            else:
                features = block(features)
        return self.act(self.norm(features))

    def evaluated(self, features: Tensor) -> FoldedStage | None:
        """What stands for all that comes after the pooling, in a call with ``features``, if anything may."""
        folded = self.folded(features)
        return folded if folded is not None and is_taken(features, self.transition.weight) else None

    def fold(self) -> FoldedStage | str:
        """The stage for the evaluation path: every norm makes up for the biases before it."""
        if obstacle := why_not_passed_over(norms=[self.norm], activations=[self.act], linear=[self.transition]):
            return obstacle
        scale, shift = affine(self.norm)
        offset = torch.zeros_like(shift) if self.transition.bias is None else self.transition.bias
        blocks = []
        for block in self.blocks:
            folded = block.fold() if type(block) is SelfAttentionBlock else f"a block is a {type(block).__name__}"
            if isinstance(folded, str):
                return folded
            blocks.append(folded.offset_by(offset))
            offset = offset + folded.bias
        if len({block.channels for block in blocks}) > 1:
            return "the transforms of the blocks have different channels"
        norm = Epilogue(scale, torch.addcmul(shift, scale, offset))
        return FoldedStage(self._pooling_stride(), pack(self.transition.weight.flatten(1).t()), blocks, norm)

    def _pooling_stride(self) -> int | None:
        """That of the pooling, or None where it is not the usual one."""
        pool = self.pool
        if is_watched(pool):
            return None
        if type(pool) is nn.MaxPool2d:
            plain = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode) == (2, 2, 0, 1, False)
            return 2 if plain else None
        return 1 if type(pool) is nn.Identity else None
