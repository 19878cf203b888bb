"""Checks of the operators' tensors, made once before a backend is called."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_tensors(**operands: Tensor) -> None:
    """Raise an error for an operand that is not a tensor; called before all other checks."""
    for name, operand in operands.items():
        if not isinstance(operand, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(operand).__name__}")


def check_map(tensor: Tensor, name: str) -> None:
    """Raise an error unless a tensor is a feature map: (N, C, H, W), floating point, with at least one pixel."""
    check_tensors(**{name: tensor})
    if tensor.ndim != 4:
        raise ValueError(f"{name} must have the shape (N, C, H, W), got {tuple(tensor.shape)}")
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {tensor.dtype}")
    if min(tensor.shape[1:]) < 1:
        raise ValueError(f"{name} must have at least one channel and one pixel, got {tuple(tensor.shape)}")


def check_alike(first: Tensor, first_name: str, second: Tensor, second_name: str) -> None:
    """Raise an error unless two operands of an operator have the same dtype and device."""
    if first.dtype != second.dtype:
        raise TypeError(
            f"{first_name} and {second_name} must have the same dtype, got {first.dtype} and {second.dtype}"
        )
    if first.device != second.device:
        raise ValueError(
            f"{first_name} and {second_name} must be on the same device, got {first.device} and {second.device}"
        )


def check_shape(tensor: Tensor, name: str, expected: tuple[int | str, ...], given: str) -> None:
    """Raise an error unless a tensor has the shape that follows from other arguments.

    Args:
        tensor: The tensor to check.
        name: Its argument's name.
        expected: The expected shape; a string names a size that may be anything.
        given: The arguments that determine the shape, for the message.
    """
    shape = tuple(tensor.shape)
    fits = len(shape) == len(expected) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"{name} must have the shape ({wanted}) for {given}, got {shape}")


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert all operands to the dtype of autocast if it is enabled: AMP mixes float32 softmax and float16 features.

    The kernels accumulate half precision in float32.
    """
    return tuple(tensor.to(autocast_dtype(tensor)) for tensor in tensors)


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of a tensor after :func:`autocast`; float64 is not converted, as in torch's own operators."""
    device_type = tensor.device.type
    if tensor.dtype == torch.float64 or device_type == "meta" or not torch.is_autocast_enabled(device_type):
        return tensor.dtype  # torch raises an error for meta
    return torch.get_autocast_dtype(device_type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Disable autocast, for what converts its operands itself and computes sums and norms in higher precision."""
    enabled = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()
