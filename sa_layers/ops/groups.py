"""Which channels of a map share a weight."""

from __future__ import annotations

from torch import Tensor

GROUPS = ("interleaved", "contiguous")


def check_groups(groups: str) -> None:
    """Raise an error for an unknown order of the channels."""
    if groups not in GROUPS:
        raise ValueError(f"groups must be one of {', '.join(GROUPS)}, got {groups!r}")


def split_channels(maps: Tensor, weight_channels: int, groups: str) -> Tensor:
    """Split the channels of (N, C, ...) into those of the weight, Cw, and those that share one.

    Args:
        maps: The maps, (N, C, ...).
        weight_channels: Cw.
        groups: 'interleaved', if channel c uses the weight ``c % Cw``, or 'contiguous', if it uses ``c // (C / Cw)``.

    Returns:
        A view, (N, C / Cw, Cw, ...) or (N, Cw, C / Cw, ...).

    Example:
        >>> import torch
        >>> split_channels(torch.arange(6).view(1, 6), 2, "contiguous").tolist()
        [[[0, 1, 2], [3, 4, 5]]]
    """
    return maps.unflatten(1, (-1, weight_channels) if groups == "interleaved" else (weight_channels, -1))


def broadcast_weight(weight: Tensor, groups: str) -> Tensor:
    """Add the dimension along which the channels of :func:`split_channels` share a weight, (N, Cw, ...)."""
    return weight.unsqueeze(1 if groups == "interleaved" else 2)
