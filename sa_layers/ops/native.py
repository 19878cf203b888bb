"""Registration of the extension's operators with torch: fake kernels, derivatives and vmap.

Schemas and kernels are written in C++ (csrc/). Derivatives are registered twice from the same two functions: on the
operator itself, which torch.compile traces, and as an autograd Function, which torch.func needs and which has less
overhead per call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import extension
from .torch_internals import argument_names, is_functionalized, is_tracing

_NOT_ARGUMENTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def native_operator(name: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register ``torch.ops.sa_layers.<name>`` without derivatives, and return it.

    For operators of evaluation or of a backward pass.

    Args:
        name: The operator's name in its C++ schema.
        fake: Allocates the outputs, with the shapes and strides of the kernel's; see :func:`by_name`.

    Returns:
        A function of the schema's positional arguments.
    """
    if not extension.is_available():
        return lambda *args: getattr(torch.ops.sa_layers, name)(*args)  # unused: backend.choose returns another backend
    torch.library.register_fake(f"sa_layers::{name}", by_name(name, fake))
    overload: Callable[..., Any] = getattr(torch.ops.sa_layers, name).default
    return overload


def differentiable_operator(
    name: str,
    fake: Callable[..., Any],
    setup_context: Callable[[Any, tuple, Any], None],
    backward: Callable[..., tuple],
    tangent: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Register ``torch.ops.sa_layers.<name>`` with derivatives, and return the function that calls it.

    Args:
        name: The operator's name in its C++ schema.
        fake: As for :func:`native_operator`.
        setup_context: Saves from (inputs, output) what ``backward`` needs.
        backward: Computes the gradients of the inputs from those of the outputs, by differentiable operators.
        tangent: Computes the tangents of the outputs in forward mode from the first two tensors, their tangents and
            the other inputs. Defaults to None, for an operator that is linear in each of its two tensors.

    Returns:
        A function of the schema's positional arguments.
    """
    overload = native_operator(name, fake)
    if not extension.is_available():
        return overload
    torch.library.register_autograd(f"sa_layers::{name}", backward, setup_context=setup_context)

    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Any, Any]:
        """Flatten the mapped dimension into the batch, the first dimension of every tensor."""
        outputs = call(*(_flatten(item, dim, info.batch_size) for item, dim in zip(inputs, in_dims, strict=True)))
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
        # torch.func.functionalize has no rule for autograd Functions
        direct = torch.compiler.is_compiling() or is_tracing() or is_functionalized()
        return overload(*inputs) if direct else function.apply(*inputs)

    return call


def by_name(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Adapt a function of some of an operator's arguments to a call with all of them, in the order of the schema.

    Args:
        operator: A name in ``torch.ops.sa_layers``.
        function: Its parameters have the names of arguments of the schema, in any order, or are keywords.

    Returns:
        A function of the schema's arguments, and of further keywords.
    """
    names = argument_names(getattr(torch.ops.sa_layers, operator).default)
    parameters = inspect.signature(function).parameters.values()
    wanted = [parameter.name for parameter in parameters if parameter.kind not in _NOT_ARGUMENTS]

    def call(*arguments: Any, **keywords: Any) -> Any:
        given = dict(zip(names, arguments, strict=False)) | keywords
        return function(**{name: given[name] for name in wanted})

    return call


def _flatten(item: Any, dim: int | None, size: int) -> Any:
    if not isinstance(item, Tensor):
        return item
    batched = item.expand(size, *item.shape) if dim is None else item.movedim(dim, 0)
    return batched.flatten(0, 1)
