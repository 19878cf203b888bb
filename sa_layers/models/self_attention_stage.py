"""A stage of a self-attention network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ..fused import FusedModule
from ..fused.channels_last import in_format_of
from ..fused.eligibility import accepts, has_hooks, why_not_accepted, why_not_modules
from ..fused.evaluation.parameters import Parameters, linear_layers
from ..fused.evaluation.stage import EvaluationStage
from ..fused.originals import replaceable
from ..fused.training.function import run
from ..fused.training.norm import TrainingNorm
from ..fused.training.transition import NormStep, TransitionStep
from ..fused.watch import call_untraced
from ..layers import SelfAttentionBlock
from ..layers.mapping import ActLayer
from ..layers.norm import NormLayer, inside, make_norm
from ..ops.checks import autocast
from ..ops.projection import Linear
from .recomputation import recompute


@replaceable("forward")
class SelfAttentionStage(FusedModule[EvaluationStage]):
    """Max-pooling, a linear transition to the width of the stage, residual blocks, norm and activation.

    Args:
        in_channels: Channels of the previous stage.
        channels: Channels of this stage.
        blocks: The number of residual blocks.
        kernel_size: Taps of the footprint.
        stride: 2 for 2x2 max-pooling, 1 for none.
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
        self.blocks = nn.ModuleList()
        for index in range(blocks):
            with inside(f"blocks.{index}"):
                self.blocks.append(
                    SelfAttentionBlock(
                        channels, kernel_size, norm_layer=norm_layer, act_layer=act_layer, **block_options
                    )
                )
        self.norm = make_norm(norm_layer, channels, "norm")
        self.act = act_layer()

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The children, with the norm and the activation first.

        They follow the blocks, but tools such as :func:`mmcv.cnn.fuse_conv_bn` multiply a norm into the last
        convolution before it in this list, whatever is between the two; that would be the transition. Parameters keep
        the order of the calls, by which the states of an optimizer are saved.
        """
        return iter(sorted(super().named_children(), key=lambda child: child[0] not in ("norm", "act")))

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H // stride, W // stride)."""
        weight = self.transition.weight
        if accepts(features, weight) and (outputs := self.evaluated(features.to(weight.dtype))) is not None:
            return autocast(*outputs)[0]
        if self.is_trained_untraced(features):
            result: Tensor = call_untraced(SelfAttentionStage.forward, self, features)
            return result
        if accepts(features, weight, training=True) and (entry := self.trained(features)) is not None:
            cast = autocast(features)[0]
            transited = run(entry, self.pool(cast) if self.pooling_stride() is None else cast)
            return in_format_of(features, run(NormStep(self.training_norm()), self.call_blocks(transited)))
        return self.act(self.norm(self.call_blocks(self.transition(self.pool(features)))))

    def call_blocks(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W), by all blocks."""
        for block in self.blocks:
            features = (
                recompute(block, features) if self.with_cp and features.requires_grad is True else block(features)
            )
        return features

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why the stage is not eligible, or None; in training, each block decides for itself."""
        if obstacle := why_not_modules(
            norms=[self.norm], activations=[self.act], linear=[self.transition], training=training
        ):
            return obstacle
        if training:
            return None
        if len(self.blocks) == 0:
            return "the stage has no blocks"
        channels = set()
        for block in self.blocks:
            if type(block) is not SelfAttentionBlock:
                return f"a block is a {type(block).__name__}"
            if obstacle := block.why_not_eligible():
                return obstacle
            channels.add(tuple((layer.out_channels, layer.weight.dtype) for layer in block.attention.transforms()))
        return "the transforms of the blocks have different channels or dtypes" if len(channels) > 1 else None

    def why_not_accepted(self, features: Sequence[Tensor], training: bool = False) -> str | None:
        """What keeps the stage from reading the features unchanged, or None."""
        return why_not_accepted(features[0], self.transition.weight, training)

    def why_not_parts(self, training: bool = False) -> str | None:
        """What keeps a block, or its attention, from being fused; the rest of the stage may still be."""
        for name, block in self.blocks.named_children():
            if not isinstance(block, SelfAttentionBlock):
                return f"blocks.{name} is a {type(block).__name__}"
            obstacle = block.why_not_eligible(training) if training else None
            if obstacle := obstacle or block.why_not_parts(training):
                return f"in blocks.{name} {obstacle}"
        return None

    def plan_training(self) -> TransitionStep:
        """Return pooling and transition in training; blocks are called, and the norm is a step of its own."""
        return TransitionStep(None, self.pooling_stride() == 2, self.transition)

    def training_norm(self) -> TrainingNorm:
        """The norm after the blocks in training."""
        return TrainingNorm("norm", self.norm, self.transition.out_channels)

    def plan(self, parameters: Parameters) -> EvaluationStage:
        """Return the stage in evaluation."""
        blocks = [block.plan(parameters) for block in self.blocks if isinstance(block, SelfAttentionBlock)]
        transition = Linear.of_layers(*linear_layers([self.transition]))
        norm = parameters.add_norm(self.norm, after=self.transition)
        stride = self.pooling_stride()
        return EvaluationStage(stride or 1, None if stride else self.pool, transition, blocks, norm)

    def why_not_pooling(self) -> str | None:
        """What keeps the pooling from being an operator; the rest of the stage may still be fused."""
        return None if self.pooling_stride() else f"the pooling is not the usual one: {self.pool}"

    def pooling_stride(self) -> int | None:
        """The stride of the pooling, or None if it is a module that must be called."""
        pool = self.pool
        if has_hooks(pool, training=True):
            return None
        if type(pool) is nn.MaxPool2d:
            options = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, pool.return_indices)
            usual = options == (2, 2, 0, 1, False, False)
            return 2 if usual else None
        return 1 if type(pool) is nn.Identity else None
