"""What every operator asks of its tensors, checked once at the edge, before any backend sees them."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_tensors(**operands: Tensor) -> None:
    """Operands, by their arguments' names, must be tensors: asked before anything is asked of them."""
    for name, operand in operands.items():
        if not isinstance(operand, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(operand).__name__}")


def check_map(tensor: Tensor, name: str) -> None:
    """A map of features: (N, C, H, W), floating point, at least one pixel."""
    check_tensors(**{name: tensor})
    if tensor.ndim != 4:
        raise ValueError(f"{name} must have the shape (N, C, H, W), got {tuple(tensor.shape)}")
    if tensor.dtype not in DTYPES:
        raise TypeError(f"{name} must be float64, float32, float16 or bfloat16, got {tensor.dtype}")
    if min(tensor.shape[1:]) < 1:
        raise ValueError(f"{name} must have at least one channel and one pixel, got {tuple(tensor.shape)}")


def check_alike(first: Tensor, first_name: str, second: Tensor, second_name: str) -> None:
    """Two operands of one operator: the same dtype and device."""
    if first.dtype != second.dtype:
        raise TypeError(f"{first_name} and {second_name} must have one dtype, got {first.dtype} and {second.dtype}")
    if first.device != second.device:
        raise ValueError(
            f"{first_name} and {second_name} must be on one device, got {first.device} and {second.device}"
        )


def check_shape(tensor: Tensor, name: str, expected: tuple[int | str, ...], given: str) -> None:
    """A shape that follows from other arguments; a string in ``expected`` names a size that is free.

    Args:
        tensor: The tensor to check.
        name: Its argument's name.
        expected: The shape it must have.
        given: What the expected shape follows from, for the message.
    """
    shape = tuple(tensor.shape)
    fits = len(shape) == len(expected) and all(
        isinstance(want, str) or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"{name} must have the shape ({wanted}) for {given}, got {shape}")


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, all operands in its dtype: AMP hands over a float32 softmax beside float16 features.

    The kernels accumulate in float32 whatever the dtype. float64 is left alone, as torch's own operators leave it.
    """
    device_type = tensors[0].device.type
    if device_type == "meta" or not torch.is_autocast_enabled(device_type):  # of meta, torch refuses to say
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors)
