"""What is compared in time must compute the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# How far two implementations may be apart, relative to the largest number: in half precision people's way of writing
# it rounds every product or every sum.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@contextmanager
def without_tf32() -> Iterator[None]:
    """Keeps torch from rounding factors of float32 to TF32 inside the block, for what is compared and not timed.

    By default cuDNN rounds those of convolutions, by more than :data:`TOLERANCES` allows, and matrix products do not. A
    wider tolerance would pass over mistakes of the kernels.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


def precision_notes(device: torch.device) -> Iterator[str]:
    """How what is timed differs from what is compared."""
    if device.type == "cuda":
        convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        yield f"TF32 for what is timed in float32: convolutions {convolutions}, matrix products {products}."
        yield "results are compared without TF32."


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
