"""The residual block in evaluation, channels last: three operators, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...ops import AffineReLU, Footprint
from ...ops.affine_relu import native_affine_relu
from ...ops.mapping_layer import MappingOperands
from ...ops.pairwise_attention import pairwise_attention_fused
from ...ops.patchwise_attention import patchwise_attention_fused
from ...ops.projection import Linear, project
from ..channels_last import to_channels_first, to_channels_last
from .parameters import Folded


class Attend(Protocol):
    """An attention behind its transforms φ, ψ and β."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, folded: Folded, epilogue: AffineReLU | None = None
    ) -> Tensor:
        """(N, Cr, H, W) twice and (N, C, H, W) -> (N, C, Ho, Wo), with the epilogue in the same pass."""
        ...


class MappingPlan(NamedTuple):
    """A mapping γ: its norms by number, and its linear layers as the module holds them."""

    norms: list[int]
    weights: list[Tensor]
    biases: list[Tensor | None]

    def operands(self, folded: Folded) -> MappingOperands:
        """The mapping as the attentions take it."""
        norms, pairs = [folded.norms[norm] for norm in self.norms], zip(self.weights, self.biases, strict=True)
        biases = [weight.new_zeros(weight.shape[0]) if bias is None else bias for weight, bias in pairs]
        return MappingOperands([norm.scale for norm in norms], [norm.shift for norm in norms], self.weights, biases)


class FusedPairwiseAttention(NamedTuple):
    """Pairwise attention by its fused operator, as an :class:`Attend`."""

    mapping: MappingPlan
    footprint: Footprint
    relation: str
    position: int | None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, folded: Folded, epilogue: AffineReLU | None = None
    ) -> Tensor:
        """The attention and its epilogue."""
        position = None if self.position is None else folded.positions[self.position]
        mapping = self.mapping.operands(folded)
        return pairwise_attention_fused(query, key, value, mapping, self.footprint, self.relation, position, epilogue)


class FusedPatchwiseAttention(NamedTuple):
    """Patchwise attention by its fused operator, as an :class:`Attend`."""

    mapping: MappingPlan
    footprint: Footprint
    relation: str

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, folded: Folded, epilogue: AffineReLU | None = None
    ) -> Tensor:
        """The attention and its epilogue."""
        mapping = self.mapping.operands(folded)
        return patchwise_attention_fused(query, key, value, mapping, self.footprint, self.relation, epilogue)


class EvaluationAttention(NamedTuple):
    """The plan of an attention layer that is called by itself, after its transforms."""

    attend: Attend
    footprint: Footprint

    def evaluate(self, folded: Folded, query: Tensor, key: Tensor, value: Tensor) -> Iterator[Tensor]:
        """Yield (N, Ho, Wo, C) for (N, Cr, H, W) twice and (N, C, H, W)."""
        yield self.attend(query, key, value, folded).permute(0, 2, 3, 1)

    def sizes(self, query: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[int, ...]]:
        """Yield the shape of what :meth:`evaluate` yields."""
        yield (value.shape[0], *self.footprint.output_size(*value.shape[2:]), value.shape[1])


class UnfusedAttention(NamedTuple):
    """An attention without a fused operator, as an :class:`Attend`."""

    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Calls the attention's modules."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, folded: Folded, epilogue: AffineReLU | None = None
    ) -> Tensor:
        """The attention, then its epilogue."""
        assert epilogue is not None  # a block always has one
        return to_channels_first(native_affine_relu(to_channels_last(self.attend(query, key, value)), *epilogue))


class Operands(NamedTuple):
    """The memory of what an attention reads, which successive blocks reuse."""

    transformed: Tensor
    """(N, H, W, D): the output of the transforms."""
    query: Tensor
    key: Tensor
    value: Tensor
    """(N, C, H, W) each: channels of ``transformed``."""


class EvaluationBlock(NamedTuple):
    """The plan of a :class:`sa_layers.layers.SelfAttentionBlock` with frozen norms."""

    prologue: int
    """The number of the first norm, whose ReLU follows it."""
    transform: Linear
    """φ, ψ and β as one linear layer."""
    channels: tuple[int, ...]
    """Their output channels; shared transforms count once."""
    attend: Attend
    epilogue: int
    """The number of the second norm, whose ReLU follows it."""
    expansion: Linear
    """Its bias is the same for every pixel: a stage adds up those of its blocks."""

    def evaluate(self, folded: Folded, features: Tensor) -> Iterator[Tensor]:
        """Yield (N, H, W, C) for (N, C, H, W): the features and the residual."""
        pixels = features.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        self.add_residual(pixels, self.new_operands(pixels), folded)
        yield pixels.add_(self.expansion.bias()[0])

    def sizes(self, features: Tensor) -> Iterator[tuple[int, ...]]:
        """Yield the shape of what :meth:`evaluate` yields."""
        yield features.permute(0, 2, 3, 1).shape

    def new_operands(self, pixels: Tensor) -> Operands:
        """Allocates the operands of the attention for ``pixels``, (N, H, W, C)."""
        transformed = self.transform.new_map(pixels)
        parts = to_channels_first(transformed[..., : self.transform.channels]).split(self.channels, dim=1)
        query, value = parts[0], parts[-1]
        return Operands(transformed, query, parts[1] if len(parts) == 3 else query, value)

    def add_residual(self, pixels: Tensor, operands: Operands, folded: Folded, norm: AffineReLU | None = None) -> None:
        """Adds the residual to ``pixels`` in place, without the bias of the expansion.

        Args:
            pixels: (N, H, W, C), contiguous.
            operands: Is overwritten.
            folded: The norms and positions of this call.
            norm: A frozen norm after the block, followed by a ReLU. Defaults to None.
        """
        project(pixels, self.transform, operands.transformed, prologue=folded.norms[self.prologue])
        epilogue = folded.norms[self.epilogue]
        attended = self.attend(operands.query, operands.key, operands.value, folded, epilogue)
        project(to_channels_last(attended), self.expansion, pixels, accumulate=True, epilogue=norm)
