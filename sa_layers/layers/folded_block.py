"""A residual block in evaluation, channels last: three operators, in place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ops import Epilogue
from ..ops.affine_relu import affine_relu
from ..ops.projection import Linear, project
from .evaluation import map_of, pixels_of
from .self_attention import Attend, SelfAttention


class Operands(NamedTuple):
    """What an attention reads, to be used again by the next block."""

    transformed: Tensor
    """(N, H, W, D): a linear layer's result."""
    query: Tensor
    key: Tensor
    value: Tensor
    """(N, C, H, W) each: channels of ``transformed``."""


class FoldedBlock(NamedTuple):
    """A :class:`SelfAttentionBlock` with frozen norms."""

    before: Epilogue
    transform: Linear
    """Query, key and value."""
    channels: tuple[int, ...]
    """Theirs; those of transforms that are shared once."""
    attend: Attend
    after: Epilogue
    expansion: Linear
    bias: Tensor
    """The expansion's, (C,) or zero: a stage collects them, since they are the same for every pixel."""

    def offset_by(self, offset: Tensor) -> FoldedBlock:
        """The same block for features that lack ``offset``, (C,)."""
        scale, shift = self.before
        return self._replace(before=Epilogue(scale, torch.addcmul(shift, scale, offset)))

    def new_operands(self, pixels: Tensor) -> Operands:
        """Room for the operands of the attention of ``pixels``, (N, H, W, C)."""
        transformed = self.transform.new_map(pixels)
        parts = map_of(transformed[..., : self.transform.channels]).split(self.channels, dim=1)
        query, value = parts[0], parts[-1]
        return Operands(transformed, query, parts[1] if len(parts) == 3 else query, value)

    def add_residual(self, pixels: Tensor, operands: Operands, norm: Epilogue | None = None) -> None:
        """Adds the residual to ``pixels`` in place, all but :attr:`bias`.

        Args:
            pixels: (N, H, W, C), contiguous.
            operands: Is overwritten.
            norm: A frozen norm that comes after the block, followed by a ReLU.
        """
        project(pixels, self.transform, operands.transformed, before=self.before)
        attended = self.attend(operands.query, operands.key, operands.value, epilogue=self.after)
        project(pixels_of(attended), self.expansion, pixels, adds=True, after=norm)


def attend_and_conclude(
    attention: SelfAttention, query: Tensor, key: Tensor, value: Tensor, *, epilogue: Epilogue
) -> Tensor:
    """An attention without a fused operator, then the norm and the ReLU behind it."""
    return map_of(affine_relu(pixels_of(attention.attend_unfused(query, key, value)), *epilogue))
