"""What a problem consists of: a call of an operator, and what is expected of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .oracle import Estimate


class Case(NamedTuple):
    """A call, which may be repeated, and its results by the oracle."""

    operands: dict[str, Any]
    call: Callable[[], dict[str, Tensor]]
    expected: dict[str, Estimate]
    arithmetic: torch.dtype
    """The dtype of intermediate results."""
    native: bool = True
    """Whether native kernels alone compute it, so that the number of threads changes no bit."""
    may_overflow: bool = True
    """Whether a result may overflow where the sum of the absolute values of its terms does."""


def accumulation(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
