"""Checks that implementations agree before they are timed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .errors import BenchmarkError

# Largest allowed difference, relative to the largest absolute value. It is wide for half precision because the plain
# torch baselines round every product or partial sum to half precision.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@contextmanager
def without_tf32() -> Iterator[None]:
    """Disable TF32 inside the block. Used when results are compared, not when they are timed.

    By default cuDNN convolutions use TF32, whose rounding error exceeds :data:`TOLERANCES`. A wider tolerance would
    hide errors of the kernels.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def precision_notes(device: torch.device) -> Iterator[str]:
    """Yield notes on the precision settings under which results are timed and compared."""
    if device.type == "cuda":
        convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        yield f"TF32 while timing in float32: convolutions {convolutions}, matrix products {products}."
        yield "Results are compared without TF32."


def check_agreement(name: str, result: Tensor, expected_name: str, expected: Tensor) -> None:
    """Check that two results are equal within the tolerance of their dtype.

    Args:
        name: Name of the implementation that computed ``result``.
        result: Tensor to check.
        expected_name: Name of the implementation that computed ``expected``.
        expected: Tensor of the same shape and dtype.

    Raises:
        BenchmarkError: If the difference exceeds the tolerance or is NaN.

    Example:
        >>> check_agreement("this", torch.ones(2), "that", torch.ones(2))
    """
    difference, scale = (result - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCES[expected.dtype] * scale:  # also catches NaN
        raise BenchmarkError(
            f"{name} differs from {expected_name} by {difference:.2g}; the largest absolute value is {scale:.2g}"
        )
