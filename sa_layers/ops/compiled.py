"""A copy that torch.compile keeps, without which inductor could not compile every backward pass for all sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .torch_internals import is_exporting


def with_own_memory(tensor: Tensor) -> Tensor:
    """Copy a tensor that may be a view, if torch.compile is tracing a forward pass that needs gradients.

    A compiled backward pass cannot be given a view with symbolic strides: inductor sorts them, and fails with "cannot
    determine truth value of Relational" (torch 2.11). It also removes a ``clone()``, but not an operator that it does
    not know.

    Args:
        tensor: Of any shape.

    Returns:
        A contiguous copy, or ``tensor`` itself.

    Example:
        >>> tensor = torch.ones(2, 3)
        >>> with_own_memory(tensor) is tensor
        True
    """
    compiled = torch.compiler.is_compiling() and not is_exporting()
    return copy(tensor) if compiled and tensor.requires_grad and torch.is_grad_enabled() else tensor


@torch.library.custom_op("sa_layers::copy", mutates_args=())
def copy(tensor: Tensor) -> Tensor:
    """Copy a tensor into contiguous memory."""
    return tensor.clone(memory_format=torch.contiguous_format)


@copy.register_fake
def _fake_copy(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape)


def _backward_copy(ctx: Any, grad: Tensor) -> Tensor:
    return grad


copy.register_autograd(_backward_copy)
