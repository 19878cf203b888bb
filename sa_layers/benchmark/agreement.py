"""What is compared in time must compute the same."""

from __future__ import annotations

import torch
from torch import Tensor

# How far two implementations may be apart, relative to the largest number: in half precision people's way of writing
# it rounds every product or every sum.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def check_agreement(name: str, result: Tensor, expected_name: str, expected: Tensor) -> None:
    """Compares two results.

    Args:
        name: What computed ``result``.
        result: A tensor.
        expected_name: What computed ``expected``.
        expected: A tensor of the same shape and dtype.

    Raises:
        SystemExit: They are further apart than their dtype explains.

    Example:
        >>> check_agreement("this", torch.ones(2), "that", torch.ones(2))
    """
    difference, scale = (result - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCES[expected.dtype] * scale:
        raise SystemExit(
            f"{name} differs from {expected_name} by {difference:.2g}, where the largest number is {scale:.2g}"
        )
