"""Modules whose activations are computed again in the backward pass, to save memory."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..ops.backend import present_backend


def recompute(module: nn.Module, features: Tensor) -> Tensor:
    """Call a module without keeping its activations, and call it again in the backward pass.

    Results, gradients and buffers are those of an ordinary call. In particular, running statistics are updated once:
    the second call starts from the buffers that the first call found, and updates copies of them. It uses the same
    backend.

    Args:
        module: Returns one tensor.
        features: Its input, which requires a gradient.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> recompute(norm, torch.randn(1, 2, 3, 3, requires_grad=True)).sum().backward()
        >>> norm.num_batches_tracked
        tensor(1)
    """
    if torch.compiler.is_compiling():  # a compiled program recomputes what was traced, and updates buffers once
        output: Tensor = checkpoint(module, features, use_reentrant=False)
        return output
    again = ForwardState(module)
    output = checkpoint(module, features, use_reentrant=False, context_fn=lambda: (nullcontext(), again))
    return output


class ForwardState:
    """A context with the state in which this object was made: the backend, and copies of a module's buffers.

    Args:
        module: Modules in it that are not in training mode keep their own buffers, since they do not update them.

    Example:
        >>> norm = nn.BatchNorm2d(2)
        >>> state = ForwardState(norm)
        >>> _ = norm(torch.ones(1, 2, 3, 3))
        >>> with state:
        ...     norm.running_mean
        tensor([0., 0.])
        >>> norm.running_mean
        tensor([0.1000, 0.1000])
    """

    def __init__(self, module: nn.Module) -> None:
        self._backend = present_backend()
        trained = [part for part in module.modules() if part.training]
        self._copies = [
            (part, name, buffer.clone()) for part in trained for name, buffer in part.named_buffers(recurse=False)
        ]
        self._left = ExitStack()

    def __enter__(self) -> None:
        """Force the backend and replace the buffers."""
        self._left = ExitStack()
        self._left.enter_context(self._backend())
        for part, name, buffer in self._copies:
            self._left.callback(setattr, part, name, getattr(part, name))
            setattr(part, name, buffer.clone())  # a clone, since a graph that is retained can run backward again

    def __exit__(self, *error: Any) -> None:
        """Put the module's own buffers back."""
        self._left.close()
