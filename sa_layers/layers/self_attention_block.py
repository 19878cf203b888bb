"""The residual block of the SAN networks: a ResNet bottleneck with self-attention instead of the 3x3 convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..fused import FusedModule
from ..fused.channels_last import in_format_of
from ..fused.eligibility import accepts, why_not_accepted, why_not_modules
from ..fused.evaluation.block import Attend, EvaluationBlock, UnfusedAttention
from ..fused.evaluation.parameters import Parameters, linear_layers
from ..fused.originals import overridden, replaceable
from ..fused.training.block import BlockStep
from ..fused.training.function import run
from ..fused.training.norm import TrainingNorm
from ..fused.watch import call_untraced
from ..ops.checks import autocast, autocast_dtype
from ..ops.footprint import IntOrPair
from ..ops.projection import Linear
from .keywords import check_keywords, keywords
from .mapping import ActLayer
from .norm import NormLayer, inside, make_norm
from .pairwise_self_attention import PairwiseSelfAttention
from .patchwise_self_attention import PatchwiseSelfAttention
from .self_attention import CALLED_METHODS, SelfAttention, default_act_layer

Attention = TypeVar("Attention", bound=type[SelfAttention])
ATTENTIONS: dict[str, type[SelfAttention]] = {"pairwise": PairwiseSelfAttention, "patchwise": PatchwiseSelfAttention}

BUILT_IN = frozenset(ATTENTIONS)

SET_BY_BLOCK = frozenset(
    ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "norm_layer", "act_layer")
)


def register_attention(name: str) -> Callable[[Attention], Attention]:
    """Give a layer of your own a name, by which blocks, networks and configs build it.

    A decorator of a subclass of :class:`PairwiseSelfAttention`, :class:`PatchwiseSelfAttention` or their base. Import
    the module with the class before the name is used; a config does so by ``custom_imports``. Registering a name again,
    as when a notebook cell is run again, replaces the class.

    Args:
        name: The value of ``attention``, such as 'distance'.

    Raises:
        TypeError: The decorated object is not such a class.
        ValueError: The name is one of the package's own, or not an identifier.

    Example:
        >>> from sa_layers.models import SelfAttentionNetwork
        >>> @register_attention("reversed")
        ... class ReversedSelfAttention(PairwiseSelfAttention):
        ...     def relate(self, query, key):
        ...         return -super().relate(query, key)
        >>> type(SelfAttentionNetwork(10, "reversed").stages[0].blocks[0].attention).__name__
        'ReversedSelfAttention'
    """
    if not isinstance(name, str) or not name.isidentifier() or name in BUILT_IN:
        raise ValueError(f"name must be an identifier other than {', '.join(sorted(BUILT_IN))}, got {name!r}")

    def register(layer: Attention) -> Attention:
        if not isinstance(layer, type) or not issubclass(layer, SelfAttention):
            raise TypeError(f"attention {name!r} must be a subclass of SelfAttention, got {layer!r}")
        ATTENTIONS[name] = layer
        return layer

    return register


def attention_keywords(attention: str) -> list[str]:
    """Return the names of the arguments that a block passes on to its attention.

    Raises:
        ValueError: ``attention`` is unknown.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {attention!r}")
    return keywords(ATTENTIONS[attention], without=SET_BY_BLOCK)


@replaceable("forward")
class SelfAttentionBlock(FusedModule[EvaluationBlock]):
    r"""A pre-activation residual block: norm, activation, self-attention, norm, activation and linear expansion.

    Figure 1 of the paper, with the order of the official network. The reductions are r1 = 16 for the
    relation and r2 = 4 for the value.

    Args:
        channels: C, of the input and the output; a multiple of 16 and of ``4 * share``.
        kernel_size: Taps of the footprint, odd.
        attention: 'pairwise' (default), 'patchwise', or a name given by :func:`register_attention`.
        dilation: Pixels between taps. Defaults to 1.
        norm_layer: Makes a normalisation for a number of channels. Defaults to BatchNorm2d.
        act_layer: Makes an activation. Defaults to an in-place ReLU; full backward hooks need one that is not in
            place, such as ``nn.ReLU``.
        **attention_options: Further arguments of the attention layer (relation, share, position, ...).

    Raises:
        TypeError: An option is unknown.
        ValueError: ``attention`` is unknown, or an option is not allowed.

    Shapes:
        (N, channels, H, W) -> (N, channels, H, W)

    Example:
        >>> import torch
        >>> SelfAttentionBlock(256, kernel_size=7)(torch.randn(1, 256, 8, 8)).shape
        torch.Size([1, 256, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: IntOrPair,
        attention: str = "pairwise",
        dilation: IntOrPair = 1,
        norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = default_act_layer,
        **attention_options: Any,
    ) -> None:
        super().__init__()
        check_keywords(self, SelfAttentionBlock, attention_options, attention_keywords(attention))
        if channels < 4:
            raise ValueError(f"channels must be a multiple of 16 and of 4 * share, got {channels!r}")
        reduced_channels = channels // 4
        self.norm1 = make_norm(norm_layer, channels, "norm1")
        self.act1 = act_layer()
        with inside("attention"):
            self.attention = ATTENTIONS[attention](
                channels,
                reduced_channels,
                kernel_size,
                dilation=dilation,
                norm_layer=norm_layer,
                act_layer=act_layer,
                **attention_options,
            )
        self.norm2 = make_norm(norm_layer, reduced_channels, "norm2")
        self.act2 = act_layer()
        self.expansion = nn.Conv2d(reduced_channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, channels, H, W)."""
        weight = self.expansion.weight
        if accepts(features, weight) and (outputs := self.evaluated(features.to(weight.dtype))) is not None:
            return outputs[0].to(torch.promote_types(features.dtype, autocast_dtype(outputs[0])))
        if self.is_trained_untraced(features):
            result: Tensor = call_untraced(SelfAttentionBlock.forward, self, features)
            return result
        if accepts(features, self.expansion.weight, training=True) and (step := self.trained(features)) is not None:
            (cast,) = autocast(features)
            if cast.dtype == features.dtype:
                return in_format_of(features, run(step, features))
            return features + in_format_of(features, run(step._replace(adds_input=False), cast))
        normalised = self.norm1(features)
        if normalised is features or isinstance(self.norm1, nn.Identity):  # an in-place activation would overwrite it
            normalised = features.clone()
        residual = self.attention(self.act1(normalised))
        return features + self.expansion(self.act2(self.norm2(residual)))

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why the block is not eligible, or None.

        In evaluation its attention need not be eligible.
        """
        kind = type(self.attention)
        if kind not in (PairwiseSelfAttention, PatchwiseSelfAttention):  # ATTENTIONS may have others
            return f"the attention is a {kind.__name__}"
        if method := overridden(self.attention, CALLED_METHODS, kind):
            return f"the attention overrides {method}"
        obstacle = why_not_modules(
            norms=[self.norm1, self.norm2],
            activations=[self.act1, self.act2],
            linear=[*self.attention.transforms(), self.expansion],
            containers=[self.attention] if training else [self, self.attention],  # a stage calls its blocks in training
            training=training,
        )
        return obstacle or (self.attention.why_not_eligible(training=True) if training else None)

    def why_not_accepted(self, features: Sequence[Tensor], training: bool = False) -> str | None:
        """What keeps the block from reading the features unchanged, or None."""
        return why_not_accepted(features[0], self.expansion.weight, training)

    def why_not_parts(self, training: bool = False) -> str | None:
        """What keeps the attention from its fused operator; the rest of the block may still be fused."""
        obstacle = self.attention.why_not_eligible(training)
        return None if obstacle is None else f"the attention is unfused, since {obstacle}"

    def plan_training(self) -> BlockStep:
        """Return the block in training."""
        attention, expansion = self.attention, self.expansion
        return BlockStep(
            TrainingNorm("norm1", self.norm1, attention.query.in_channels),
            attention.transforms(),
            attention.plan_training(),
            TrainingNorm("norm2", self.norm2, expansion.in_channels),
            expansion,
        )

    def plan(self, parameters: Parameters) -> EvaluationBlock:
        """Return the block in evaluation."""
        attention = self.attention
        transforms = Linear.of_layers(*linear_layers(attention.transforms()))
        attend: Attend = UnfusedAttention(attention.attend_unfused)
        if attention.why_not_eligible() is None:
            attend = attention.plan_attend(parameters)
        return EvaluationBlock(
            parameters.add_norm(self.norm1, before=attention.query),
            transforms,
            tuple(weight.shape[0] for weight in transforms.weights),
            attend,
            parameters.add_norm(self.norm2, before=self.expansion),
            Linear.of_layers(*linear_layers([self.expansion])),
        )
