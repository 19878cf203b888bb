"""Registers an operator of the extension with torch: its fake kernel, derivatives and vmap.

The schema and the kernels are C++ (csrc/). Derivatives are registered twice from the same two functions: on the
operator itself, which torch.compile traces, and as an autograd Function, which torch.func needs and which costs less
per call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import extension
from .torch_internals import argument_names

_NOT_ARGUMENTS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def native_operator(name: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Registers ``torch.ops.sa_layers.<name>``, which has no derivative, and returns it.

    For operators that are used in evaluation or in a backward pass.

    Args:
        name: The operator's name in its C++ schema.
        fake: Allocates the outputs, with the shapes and strides of the kernel's; see :func:`by_name`.

    Returns:
        A function of the schema's positional arguments.
    """
    if not extension.is_available():
        return lambda *args: getattr(torch.ops.sa_layers, name)(*args)  # never chosen: backend.choose says why
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
    """Registers ``torch.ops.sa_layers.<name>`` with derivatives, and returns the function that calls it.

    Args:
        name: The operator's name in its C++ schema.
        fake: As for :func:`native_operator`.
        setup_context: Saves from (inputs, output) what ``backward`` needs.
        backward: Gradients of the inputs from gradients of the outputs, computed by differentiable operators.
        tangent: The change of the outputs in forward-mode differentiation: a function of the first two tensors, their
            changes, and the other inputs. Defaults to None, for an operator that is a product of its tensors.

    Returns:
        A function of the schema's positional arguments.
    """
    overload = native_operator(name, fake)
    if not extension.is_available():
        return overload
    torch.library.register_autograd(f"sa_layers::{name}", backward, setup_context=setup_context)

    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Any, Any]:
        """Flattens the mapped dimension into the batch, the first dimension of every tensor."""
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
        return overload(*inputs) if torch.compiler.is_compiling() else function.apply(*inputs)

    return call


def by_name(operator: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Adapts a function that names some of an operator's arguments to all of them, in the order of the schema.

    Args:
        operator: A name in ``torch.ops.sa_layers``.
        function: Its parameters are arguments of the schema, in any order, or are passed by keyword.

    Returns:
        A function of the schema's arguments, and of further keywords that ``function`` may name too.
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
