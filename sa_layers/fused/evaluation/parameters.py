"""Norms and position encodings as the fused operators take them, computed from their parameters at every call.

Weights are not here: the kernels read them as modules hold them, and pack them at every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...ops import AffineReLU, PairPosition
from ...ops.torch_internals import value_of
from ..eligibility import NORM_TENSORS
from ..position import position_matrices


class Folded(NamedTuple):
    """Norms and positions of one call."""

    norms: list[AffineReLU]
    positions: list[PairPosition]


@dataclass
class Parameters:
    """The norms and position encodings of a plan, which refers to them by number.

    They are folded together: that takes as many operations for a network as for one norm.

    Example:
        >>> parameters, norm = Parameters(), nn.BatchNorm2d(1, eps=0.0).eval()
        >>> number = parameters.add_norm(norm)
        >>> _ = nn.init.constant_(norm.running_mean, 3.0)
        >>> parameters.fold().norms[number].shift.item()
        -3.0
    """

    norms: dict[float, list[tuple[int, list[Any]]]] = field(default_factory=dict)
    """By ε: the number and the tensors of each norm."""
    identities: list[tuple[int, Tensor, int]] = field(default_factory=list)
    """The number of each, and a weight of which a dimension has the channels."""
    positions: dict[str, list[tuple[int, Tensor, Tensor, tuple[int, int] | None]]] = field(default_factory=dict)
    """By kind: the number, weight, bias and map size of each."""
    norm_count: int = 0
    position_count: int = 0

    def add_norm(self, norm: Any, *, before: nn.Module | None = None, after: nn.Module | None = None) -> int:
        """Add an eligible norm.

        Args:
            norm: A batch norm, or ``nn.Identity`` for the scale 1 and the shift 0.
            before: The linear layer that reads the norm: it has the channels of an ``nn.Identity``.
            after: The linear layer whose output the norm reads, if not ``before``.

        Returns:
            Its number in :attr:`Folded.norms`.
        """
        if isinstance(norm, nn.Identity):
            linear, dimension = (after, 0) if before is None else (before, 1)
            assert linear is not None
            weight: Any = value_of(linear, "weight")
            self.identities.append((self.norm_count, weight, dimension))
        else:
            tensors = [value_of(norm, name) for name in NORM_TENSORS]
            self.norms.setdefault(norm.eps, []).append((self.norm_count, tensors))
        self.norm_count += 1
        return self.norm_count - 1

    def add_position(self, linear: nn.Module, position: str, size: tuple[int, int] | None) -> int:
        """Add a position encoding.

        Args:
            linear: The encoding's 1x1 convolution, with a bias.
            position: 'relative' or 'absolute'.
            size: The map across which coordinates run from -1 to 1, or None for the map at hand.

        Returns:
            Its number in :attr:`Folded.positions`.
        """
        weight: Any = value_of(linear, "weight")
        bias: Any = value_of(linear, "bias")
        self.positions.setdefault(position, []).append((self.position_count, weight, bias, size))
        self.position_count += 1
        return self.position_count - 1

    def fold(self) -> Folded:
        """Compute all norms and positions from the values that their tensors have now."""
        norms: list[Any] = [None] * self.norm_count
        for eps, group in self.norms.items():
            for (number, _), norm in zip(group, fold_norms([tensors for _, tensors in group], eps), strict=True):
                norms[number] = norm
        shared: dict[Any, AffineReLU] = {}
        for number, weight, dimension in self.identities:
            like = weight.shape[dimension], weight.dtype, weight.device
            if like not in shared:
                shared[like] = identity_norm(weight, dimension)
            norms[number] = shared[like]
        positions: list[Any] = [None] * self.position_count
        for kind, members in self.positions.items():
            matrices = _position_matrices(
                [weight for _, weight, *_ in members], [bias for *_, bias, _ in members], kind
            )
            for (number, *_, size), query, key in zip(members, *matrices, strict=True):
                positions[number] = PairPosition(query, key, size)
        return Folded(norms, positions)

    def tensors(self) -> Iterator[Tensor]:
        """All tensors that are read."""
        for group in self.norms.values():
            for _, tensors in group:
                yield from tensors
        for members in self.positions.values():
            for _, weight, bias, _ in members:
                yield from (weight, bias)


def fold_norms(norms: Sequence[Sequence[Tensor]], eps: float) -> list[AffineReLU]:
    r"""Compute the scales and shifts of frozen norms, all in a few operations. Not differentiable.

    .. math:: s = w / \sqrt{\sigma^2 + \epsilon}, \qquad t = b - \mu s

    Args:
        norms: The weight w, bias b, running mean and running variance of each, (C,).
        eps: ε of all of them.

    Returns:
        s and t, (C,), of each; in float32, or float64 for parameters in float64.

    Example:
        >>> one, three = torch.ones(1), torch.full((1,), 3.0)
        >>> fold_norms([(one, one, three, three)], 1.0)
        [AffineReLU(scale=tensor([0.5000]), shift=tensor([-0.5000]))]
    """
    weight, bias, mean, variance = map(_joined, zip(*norms, strict=True))
    scale = torch.rsqrt(variance + eps).mul_(weight)
    shift = torch.addcmul(bias, mean, scale, value=-1)
    if len(norms) == 1:
        return [AffineReLU(scale, shift)]
    sizes = [tensors[0].shape[0] for tensors in norms]
    return list(map(AffineReLU, scale.split(sizes), shift.split(sizes)))


def identity_norm(weight: Tensor, dimension: int) -> AffineReLU:
    """The scale 1 and the shift 0 for the channels of a dimension of a weight, in the dtype of :func:`fold_norms`.

    Example:
        >>> identity_norm(torch.zeros(2, 3), 0)
        AffineReLU(scale=tensor([1., 1.]), shift=tensor([0., 0.]))
    """
    channels, dtype = weight.shape[dimension], torch.promote_types(weight.dtype, torch.float32)
    return AffineReLU(weight.new_ones(channels, dtype=dtype), weight.new_zeros(channels, dtype=dtype))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """All tensors in one, in the dtype of accumulation."""
    joined = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
    return joined.to(torch.promote_types(joined.dtype, torch.float32))


def _position_matrices(
    weights: Sequence[Tensor], biases: Sequence[Tensor], position: str
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The affine maps of the coordinates of a pixel and of its neighbour, (P, 3) each."""
    matrix = torch.cat([torch.stack(list(weights)).flatten(2), torch.stack(list(biases)).unsqueeze(2)], dim=2)
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    query, key = position_matrices(matrix, position)
    return query.unbind(), key.unbind()


def linear_layers(layers: Sequence[nn.Module]) -> tuple[list[Any], list[Any]]:
    """The weights and biases of 1x1 convolutions, as the modules hold them."""
    return [value_of(layer, "weight") for layer in layers], [value_of(layer, "bias") for layer in layers]
