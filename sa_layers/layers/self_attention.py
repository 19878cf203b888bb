"""The base of pairwise and patchwise self-attention: constructor, transforms and checks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch.fx
from torch import Tensor, nn

from ..fused import FusedModule
from ..fused.channels_last import in_format_of
from ..fused.evaluation.block import Attend, EvaluationAttention, MappingPlan
from ..fused.evaluation.parameters import Parameters, linear_layers
from ..fused.training.attention import AttentionStep, AttentionTraining
from ..fused.training.function import run
from ..fused.training.norm import TrainingNorm
from ..fused.watch import call_untraced
from ..ops.checks import autocast
from ..ops.footprint import Footprint, IntOrPair, pair
from ..ops.integers import integer, integers, is_integer
from .mapping import ActLayer, make_mapping
from .norm import NormLayer, inside

SHARED_TRANSFORMS = {None: ("query", "key", "value"), "query_key": ("query", "value"), "all": ("query",)}
torch.fx.wrap("in_format_of")  # a function that torch.fx records as it is
default_act_layer: ActLayer = partial(nn.ReLU, inplace=True)
FUSED_METHODS = ("relate", "map_relation", "attend_unfused", "weights")
"""Methods whose work the fused operator does."""
CALLED_METHODS = ("forward", "attend", "transform", "transforms")
"""Methods that a layer calls itself, and whose work a fused block does."""


class SelfAttention(FusedModule[EvaluationAttention]):
    """Base of the two attention layers; see :class:`PairwiseSelfAttention` and :class:`PatchwiseSelfAttention`.

    The first eight arguments are those of :class:`torch.nn.Conv2d`, so the layers can replace any convolution with an
    odd kernel size and "same" padding.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of ``share``.
        kernel_size: Taps of the footprint, odd.
        stride: Pixels between footprints. Defaults to 1.
        padding: None (default) or ``dilation * (kernel_size - 1) / 2``, the only padding that is supported.
        dilation: Pixels between taps. Defaults to 1.
        groups: 1 (default), the only number that is supported; ``share`` groups channels instead.
        bias: Whether the transforms φ, ψ and β have a bias. Defaults to True.
        relation: δ, how features are compared; see the subclasses, which have different defaults.
        position: The position encoding concatenated to δ: 'relative', 'absolute' or None. Defaults to 'relative' for
            pairwise attention; patchwise attention has none.
        position_size: The size in pixels of the map that sets the scale of positions, an integer or (height, width).
            With the size of training, an offset has the same encoding on maps of every size. Defaults to None, for the
            size of the input, as in the official network.
        relation_channels: Channels of φ and ψ. Defaults to ``out_channels // 4`` (r1 = 16 if out_channels is C / 4).
        mapping_layers: Linear layers of the mapping γ: 1, 2 or 3. Defaults to 2.
        share: The number of channels that share a weight. Defaults to 8.
        shared_transforms: None (default) for separate φ, ψ and β, 'query_key' (φ = ψ), or 'all' (φ = ψ = β, which needs
            ``relation_channels == out_channels``).
        padding_mode: 'reflect' (default) or 'zeros' beyond the border.
        norm_layer: Makes a normalisation of the mapping for a number of channels. Defaults to BatchNorm2d.
        act_layer: Makes an activation of the mapping. Defaults to an in-place ReLU; full backward hooks need one that
            is not in place, such as ``nn.ReLU``.

    Raises:
        TypeError: A size is not an integer or a pair, or another integer has another type.
        ValueError: The value of an argument is not allowed; the message names it.
    """

    relations: tuple[str, ...] = ()
    default_position: str | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair | None = None,
        dilation: IntOrPair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        relation: str | None = None,
        position: str | None = "default",
        position_size: IntOrPair | None = None,
        relation_channels: int | None = None,
        mapping_layers: int = 2,
        share: int = 8,
        shared_transforms: str | None = None,
        padding_mode: str = "reflect",
        norm_layer: NormLayer = nn.BatchNorm2d,
        act_layer: ActLayer = default_act_layer,
    ) -> None:
        super().__init__()
        in_channels, out_channels = integer(in_channels, "in_channels"), integer(out_channels, "out_channels")
        share, mapping_layers = integer(share, "share"), integer(mapping_layers, "mapping_layers")
        self.footprint = Footprint.parse(kernel_size, stride, dilation, padding_mode)
        if padding is not None and _padding(padding) != self.footprint.padding:
            raise ValueError(f"padding must be None or {self.footprint.padding}, which keeps the size, got {padding!r}")
        if groups != 1:
            raise ValueError(f"groups must be 1, use `share` to group channels, got {groups!r}")
        relation = self.relations[0] if relation is None else relation
        if relation not in self.relations:
            raise ValueError(f"relation must be one of {', '.join(self.relations)}, got {relation!r}")
        if min(in_channels, out_channels) < 1:
            raise ValueError(f"in_channels and out_channels must be positive, got {in_channels!r} and {out_channels!r}")
        if share < 1 or out_channels % share:
            raise ValueError(f"share must divide out_channels ({out_channels}), got {share!r}")
        if shared_transforms not in SHARED_TRANSFORMS:
            raise ValueError(f"shared_transforms must be one of {tuple(SHARED_TRANSFORMS)}, got {shared_transforms!r}")
        if relation_channels is None:
            relation_channels = out_channels if shared_transforms == "all" else max(out_channels // 4, 1)
        relation_channels = integer(relation_channels, "relation_channels")
        if shared_transforms == "all" and relation_channels != out_channels:
            raise ValueError(
                f"relation_channels must equal out_channels ({out_channels}) if all transforms are shared, "
                f"got {relation_channels!r}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        # the other attributes of nn.Conv2d, for code that reads them, such as mmcv's ConvModule
        self.kernel_size, self.stride, self.dilation, self.padding_mode = self.footprint
        self.padding, self.output_padding, self.groups, self.transposed = self.footprint.padding, (0, 0), 1, False
        self.relation = relation
        self.relation_channels = relation_channels
        self.mapping_layers = mapping_layers
        self.share = share
        self.shared_transforms = shared_transforms
        self.weight_channels = out_channels // share
        self.query = nn.Conv2d(in_channels, relation_channels, 1, bias=bias)
        if shared_transforms is None:
            self.key = nn.Conv2d(in_channels, relation_channels, 1, bias=bias)
        if shared_transforms != "all":
            self.value = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        position = self.default_position if position == "default" else position
        self.position = self.make_position(position, position_size)
        with inside("mapping"):
            self.mapping = make_mapping(*self.mapping_widths(), mapping_layers, norm_layer, act_layer)

    def make_position(self, position: str | None, size: IntOrPair | None) -> nn.Module | None:
        """Make the position encoding. The base has none, so ``size`` must be None."""
        if size is not None:
            raise ValueError(f"position_size must be None without a position encoding, got {size!r}")
        return None

    def mapping_widths(self) -> tuple[int, int, int]:
        """Input, hidden and output channels of the mapping γ."""
        raise NotImplementedError

    def relate(self, query: Tensor, key: Tensor) -> Tensor:
        """δ(query, key), the input of the mapping."""
        raise NotImplementedError

    def map_relation(self, query: Tensor, key: Tensor) -> Tensor:
        """γ(δ(query, key)): (N, Cw, Kh * Kw, Ho * Wo), for a pairwise layer the logits of its softmax."""
        raise NotImplementedError

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute the weights from query and key, and the aggregation of value."""
        if isinstance(query, Tensor):  # not recorded by torch.fx
            outputs = self.evaluated(*autocast(query, key, value), channels_last=True)
            if outputs is not None:
                return outputs[0]
        if self.is_trained_untraced(query, key, value):
            result: Tensor = call_untraced(SelfAttention.attend, self, query, key, value)
            return result
        if (attention := self.trained(query, key, value)) is not None:
            return run(AttentionStep(attention), *autocast(query, key, value))
        return self.attend_unfused(query, key, value)

    def attend_unfused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute :meth:`attend` by calling the mapping."""
        raise NotImplementedError

    def why_not_foldable(self, layers: Sequence[int], training: bool = False) -> str | None:
        """One sentence on why the mapping and the position are not linear layers with norms and ReLUs, or None.

        Args:
            layers: The numbers of linear layers of the mapping that are allowed.
            training: Whether gradients or batch statistics are computed. Defaults to False.
        """
        raise NotImplementedError

    def plan(self, parameters: Parameters) -> EvaluationAttention:
        """Return the attention in evaluation."""
        return EvaluationAttention(self.plan_attend(parameters), self.footprint)

    def plan_attend(self, parameters: Parameters) -> Attend:
        """Return the fused operator with its operands."""
        raise NotImplementedError

    def plan_mapping(self, parameters: Parameters) -> MappingPlan:
        """Return what the fused operator reads of the mapping."""
        mapping: Any = self.mapping
        norms, linear = mapping[::3], mapping[2::3]
        numbers = [parameters.add_norm(norm, before=layer) for norm, layer in zip(norms, linear, strict=True)]
        return MappingPlan(numbers, *linear_layers(linear))

    def plan_training(self) -> AttentionTraining:
        """Return the attention in training."""
        raise NotImplementedError

    def training_norms(self) -> tuple[TrainingNorm, TrainingNorm]:
        """The norms of a mapping of two layers."""
        mapping: Any = self.mapping
        first, second = (TrainingNorm(f"norm{i + 1}", mapping[3 * i], mapping[3 * i + 2].in_channels) for i in range(2))
        return first, second

    def forward(self, features: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)), in its memory format."""
        return in_format_of(features, self.attend(*self.transform(features)))

    def weights(self, features: Tensor) -> Tensor:
        """The attention weights, by which the pixels of every footprint are multiplied.

        For a pairwise layer, the weights after the softmax: they are positive and sum to 1 over the footprint. For a
        patchwise layer they have either sign. Output channel c uses weight channel ``c % Cw``; taps are numbered row by
        row.

        Args:
            features: (N, in_channels, H, W), the input of the layer.

        Returns:
            (N, Cw, Kh * Kw, Ho, Wo) with ``Cw = out_channels / share`` and ``Ho = ceil(H / stride)``, differentiable.
            In training mode, the norms of the mapping use batch statistics and update their running statistics, as in
            :meth:`forward`.

        Example:
            >>> import torch
            >>> from sa_layers.layers import PairwiseSelfAttention
            >>> weights = PairwiseSelfAttention(64, 64, kernel_size=7).weights(torch.randn(1, 64, 14, 14))
            >>> weights.shape
            torch.Size([1, 8, 49, 14, 14])
            >>> bool((weights.sum(2) - 1).abs().max() < 1e-5)
            True
        """
        query, key, _ = self.transform(features)
        size = self.footprint.output_size(features.shape[-2], features.shape[-1])
        return self.map_relation(query, key).unflatten(-1, size)

    def transform(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """φ(x), ψ(x), β(x): query, key and value."""
        query = self.query(features)
        key = self.key(features) if self.shared_transforms is None else query
        value = self.value(features) if self.shared_transforms != "all" else query
        return query, key, value

    def transforms(self) -> list[nn.Conv2d]:
        """The linear layers of φ, ψ and β, without repeating shared ones."""
        return [getattr(self, name) for name in SHARED_TRANSFORMS[self.shared_transforms]]

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        kernel_size, stride, dilation, padding_mode = self.footprint
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={kernel_size}, relation={self.relation!r}"]
        parts += [f"stride={stride}"] * (stride != (1, 1)) + [f"dilation={dilation}"] * (dilation != (1, 1))
        parts += [f"padding_mode={padding_mode!r}"] * (padding_mode != "reflect")
        return ", ".join([*parts, f"share={self.share}"])


def _padding(padding: IntOrPair) -> tuple[int, int]:
    sides = (padding, padding) if is_integer(padding) else integers(padding)
    return (0, 0) if sides == (0, 0) else pair(padding, "padding")
