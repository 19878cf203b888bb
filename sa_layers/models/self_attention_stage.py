"""One stage of a self-attention network: halve the map, widen it linearly, attend."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import SelfAttentionBlock
from ..layers.evaluation import affine, in_layout_of, map_of, may_pass_over, pixels_of, tensors_of
from ..layers.folding import FoldingModule
from ..layers.mapping import ActLayer, NormLayer
from ..ops import Epilogue
from ..ops.projection import Linear, pack, project


class SelfAttentionStage(FoldingModule):
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
        if self.may_evaluate(features):
            pixels = self.evaluate(pixels_of(self.pool(map_of(pixels_of(features)))))
            return in_layout_of(features, map_of(pixels))
        features = self.transition(self.pool(features))
        for block in self.blocks:
            if self.with_cp and features.requires_grad:
                features = checkpoint(block, features, use_reentrant=False)
            else:
                features = block(features)
        return self.act(self.norm(features))

    def may_evaluate(self, features: Tensor) -> bool:
        """Whether :meth:`evaluate` may stand for all that comes after the pooling."""
        return may_pass_over(features, norms=[self.norm], activations=[self.act], linear=[self.transition]) and all(
            type(block) is SelfAttentionBlock and block.may_evaluate(features) for block in self.blocks
        )

    def evaluate(self, pooled: Tensor) -> Tensor:
        """The evaluation path, channels last: (N, H, W, in_channels) -> (N, H, W, channels)."""
        scale, shift, *transition = self._folded(tensors_of([self.norm, self.transition]))
        pixels = project(pooled, Linear(*transition), self.transition.out_channels)
        pixels = pixels.contiguous()
        del pooled  # a map less while the blocks compute
        offset = torch.zeros_like(shift) if self.transition.bias is None else self.transition.bias
        *blocks, last = cast("list[SelfAttentionBlock]", list(self.blocks))
        for block in blocks:
            offset = block.add_residual(pixels, offset)
        last.add_residual(pixels, offset, Epilogue(scale, shift))
        return pixels

    def _fold(self, *_: Tensor) -> tuple[Tensor, ...]:
        return *affine(self.norm), *pack(self.transition.weight.flatten(1).t())
