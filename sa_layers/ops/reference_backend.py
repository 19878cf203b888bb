"""The backend 'reference': forward and backward of every operator by the Numba reference on NumPy arrays.

The first call imports the reference, so that the other backends need neither NumPy nor Numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .footprint import Footprint

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compute_by_reference(name: str, first: Tensor, second: Tensor, footprint: Footprint, **options: str) -> Tensor:
    """Compute an operator by its reference, which is differentiable once.

    Args:
        name: The name of the operator, also in :mod:`sa_layers.reference`.
        first: Its first operand, on the CPU.
        second: Its second operand, of the same dtype.
        footprint: The arguments that follow the operands.
        options: Its other arguments, by name.
    """
    return _Reference.apply(name, footprint._asdict() | options, first, second)


class _Reference(torch.autograd.Function):
    @staticmethod
    def forward(name: str, options: dict[str, Any], first: Tensor, second: Tensor) -> Tensor:
        from sa_layers import reference

        output = getattr(reference, name)(_array(first), _array(second), **options)
        return torch.from_numpy(output).to(first.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.name, ctx.options, *operands = inputs
        ctx.save_for_backward(*operands)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        from sa_layers import reference

        arrays = (_array(item) for item in (grad, *ctx.saved_tensors))
        gradients = getattr(reference, f"{ctx.name}_backward")(*arrays, **ctx.options)
        return None, None, *(torch.from_numpy(item).to(grad.dtype) for item in gradients)


def _array(tensor: Tensor) -> NDArray:
    """Convert to float64, which represents every value of every dtype (NumPy has no bfloat16)."""
    return tensor.detach().double().numpy()
