"""What both attentions have in common in training, and the step of an attention layer by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..channels_last import to_channels_first
from .function import MAP, Gradients, Kept, Values


class Operands(NamedTuple):
    """The maps that an attention reads, or their gradients; they may be channels of one map."""

    query: Tensor
    """(N, H, W, Cr)."""
    key: Tensor
    """As ``query``; the same tensor if the transforms are shared."""
    value: Tensor
    """(N, H, W, C)."""


class AttentionTraining(Protocol):
    """An attention behind its transforms φ, ψ and β, in training."""

    def tensors(self) -> Values:
        """The parameters, by name."""
        ...

    def forward(self, values: Values, operands: Operands) -> tuple[Tensor, list[Tensor], Any]:
        """Compute the output, (N, Ho, Wo, C), and what the backward pass needs: maps, the output first, and a state."""
        ...

    def backward(
        self, values: Values, kept: list[Tensor], state: Any, grad: Tensor, operands: Operands, out: Operands
    ) -> Gradients:
        """Write the gradients of the operands into ``out``, and return those of the parameters."""
        ...


class AttentionStep(NamedTuple):
    """An attention layer by itself, behind its transforms, as a :class:`Step` of query, key and value."""

    attention: AttentionTraining

    def tensors(self) -> Values:
        """The parameters of the attention."""
        return self.attention.tensors()

    def forward(self, values: Values, *maps: Tensor) -> tuple[Tensor, Kept]:
        """(N, Cr, H, W) twice and (N, C, H, W) -> (N, C, Ho, Wo), channels last in memory."""
        operands = Operands(*(pixels_of(features) for features in maps))
        output, kept, state = self.attention.forward(values, operands)
        # the next operation may change the output in place
        return to_channels_first(output.clone()), Kept([*operands, *kept], state)

    def backward(
        self, values: Values, kept: Kept, grad: Tensor, needed: frozenset[str]
    ) -> tuple[Sequence[Tensor | None], Gradients]:
        """Compute the gradients of query, key and value."""
        operands, rest = Operands(*kept.maps[:3]), list(kept.maps[3:])
        out = Operands(*(torch.empty_like(pixels) for pixels in operands))
        gradients = self.attention.backward(values, rest, kept.state, pixels_of(grad), operands, out)
        return [
            to_channels_first(pixels) if f"{MAP}{index}" in needed else None for index, pixels in enumerate(out)
        ], gradients


def pixels_of(features: Tensor) -> Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C) with channels that follow each other, without a copy if they do.

    The result may be some channels of a wider map.
    """
    pixels = features.permute(0, 2, 3, 1)
    _, height, width, channels = pixels.shape
    step = pixels.stride(2) if width > 1 else max(channels, pixels.stride(2))
    expected = (height * width * step, width * step, step, 1)
    fits = all(
        size == 1 or have == want for size, have, want in zip(pixels.shape, pixels.stride(), expected, strict=True)
    )
    return pixels if fits and step >= channels else pixels.clone(memory_format=torch.contiguous_format)
