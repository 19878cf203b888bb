"""The forms in which a linear layer may hold its weight, (out, in)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, apart from each other in memory."""
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)[..., 0]


def slice_of_wider(weight: Tensor) -> Tensor:
    """The same rows within those of a wider matrix."""
    return torch.cat([weight, weight.new_full((len(weight), 3), torch.nan)], 1)[:, :-3]


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "matrix": lambda weight: weight,
    "kernel": lambda weight: weight[..., None, None],
    "channels-last kernel": lambda weight: weight[..., None, None].to(memory_format=torch.channels_last),
    "transposed": lambda weight: weight.t().contiguous().t(),
    "strided": strided,
    "slice": slice_of_wider,
}
