"""The residual block in evaluation, channels last: three operators, in place.

A block for training, with gradients, belongs beside this file. It will share the layout of the maps and the order of
the operators, and will take batch statistics and saved tensors in addition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..ops import AffineReLU
from ..ops.affine_relu import native_affine_relu
from ..ops.projection import Linear, project
from .channels_last import to_channels_first, to_channels_last


class Attend(Protocol):
    """An attention behind its transforms φ, ψ and β."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, epilogue: AffineReLU | None) -> Tensor:
        """(N, Cr, H, W) twice and (N, C, H, W) -> (N, C, Ho, Wo), with the epilogue in the same pass."""
        ...


class UnfusedAttention:
    """An attention without a fused operator, as an :class:`Attend`.

    Args:
        attend: Calls the attention's modules.
    """

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self.attend = attend

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, epilogue: AffineReLU | None) -> Tensor:
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
    """A :class:`sa_layers.layers.SelfAttentionBlock` with frozen norms."""

    prologue: AffineReLU
    """The first norm and its ReLU."""
    transform: Linear
    """φ, ψ and β as one linear layer."""
    channels: tuple[int, ...]
    """Their output channels; shared transforms count once."""
    attend: Attend
    epilogue: AffineReLU
    """The second norm and its ReLU."""
    expansion: Linear
    bias: Tensor
    """The bias of the expansion, (C,) or zero. It is the same for every pixel: a stage adds up those of its blocks."""

    def with_input_offset(self, offset: Tensor) -> EvaluationBlock:
        """The same block for features that lack ``offset``, (C,), which its prologue then adds."""
        scale, shift = self.prologue
        return self._replace(prologue=AffineReLU(scale, torch.addcmul(shift, scale, offset)))

    def new_operands(self, pixels: Tensor) -> Operands:
        """Allocates the operands of the attention for ``pixels``, (N, H, W, C)."""
        transformed = self.transform.new_map(pixels)
        parts = to_channels_first(transformed[..., : self.transform.channels]).split(self.channels, dim=1)
        query, value = parts[0], parts[-1]
        return Operands(transformed, query, parts[1] if len(parts) == 3 else query, value)

    def add_residual(self, pixels: Tensor, operands: Operands, norm: AffineReLU | None = None) -> None:
        """Adds the residual to ``pixels`` in place, without :attr:`bias`.

        Args:
            pixels: (N, H, W, C), contiguous.
            operands: Is overwritten.
            norm: A frozen norm after the block, followed by a ReLU. Defaults to None.
        """
        project(pixels, self.transform, operands.transformed, prologue=self.prologue)
        attended = self.attend(operands.query, operands.key, operands.value, epilogue=self.epilogue)
        project(to_channels_last(attended), self.expansion, pixels, accumulate=True, epilogue=norm)
