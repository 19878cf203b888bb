"""Ties an operator of the extension into torch: fake kernel, derivatives, vmap.

The schema and the kernels are C++ (csrc/). Derivatives are registered twice from the same two functions: on the
operator itself, which torch.compile traces, and as an autograd Function, which also serves torch.func and costs less
per call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import extension


def native_operator(
    name: str,
    fake: Callable[..., Any],
    setup_context: Callable[[Any, tuple, Any], None],
    backward: Callable[..., tuple],
    tangent: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Makes ``torch.ops.sa_layers.<name>`` differentiable and returns the function that calls it.

    Args:
        name: The operator's name in its C++ schema.
        fake: Allocates the outputs for given inputs, with the shapes and strides of the kernel's.
        setup_context: Saves from (inputs, output) what ``backward`` needs.
        backward: Gradients of the inputs from gradients of the outputs, itself made of differentiable operators.
        tangent: For forward-mode differentiation, what the outputs change by: a function of the two tensors, what
            these change by, and the other inputs. Defaults to None, for an operator that is a product of its tensors.

    Returns:
        A function of the schema's positional arguments.
    """
    if not extension.is_available():
        return lambda *args: getattr(torch.ops.sa_layers, name)(*args)  # never chosen: backend.choose says why

    overload = getattr(torch.ops.sa_layers, name).default
    qualified_name = f"sa_layers::{name}"
    torch.library.register_fake(qualified_name, fake)
    torch.library.register_autograd(qualified_name, backward, setup_context=setup_context)

    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Any, Any]:
        """Folds the mapped dimension into the batch, the first dimension of every tensor."""
        outputs = call(*(_fold(item, dim, info.batch_size) for item, dim in zip(inputs, in_dims, strict=True)))
        if isinstance(outputs, Tensor):
            return outputs.unflatten(0, (info.batch_size, -1)), 0
        return tuple(item.unflatten(0, (info.batch_size, -1)) for item in outputs), (0,) * len(outputs)

    def setup(ctx: Any, inputs: tuple, output: Any) -> None:
        setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:2])
        ctx.rest = inputs[2:]

    def jvp(ctx: Any, *changes: Any) -> Any:
        return (tangent or product_tangent)(*ctx.saved_tensors, *changes[:2], *ctx.rest)

    def product_tangent(first: Tensor, second: Tensor, first_change: Tensor, second_change: Tensor, *rest: Any) -> Any:
        return call(first_change, second, *rest) + call(first, second_change, *rest)

    function: Any = type(
        name,
        (torch.autograd.Function,),
        {
            "forward": staticmethod(lambda *inputs: overload(*inputs)),
            "setup_context": staticmethod(setup),
            "backward": staticmethod(backward),
            "jvp": staticmethod(jvp),
            "vmap": staticmethod(vmap),
        },
    )

    def call(*inputs: Any) -> Any:
        return overload(*inputs) if torch.compiler.is_compiling() else function.apply(*inputs)

    return call


def native_gradient(name: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Ties in an operator that runs inside a backward pass or in inference only, and needs no derivative of its own."""
    if not extension.is_available():
        return lambda *args: getattr(torch.ops.sa_layers, name)(*args)  # never chosen: backend.choose says why
    torch.library.register_fake(f"sa_layers::{name}", fake)
    overload: Callable[..., Any] = getattr(torch.ops.sa_layers, name).default
    return overload


def _fold(item: Any, dim: int | None, size: int) -> Any:
    if not isinstance(item, Tensor):
        return item
    batched = item.expand(size, *item.shape) if dim is None else item.movedim(dim, 0)
    return batched.flatten(0, 1)
