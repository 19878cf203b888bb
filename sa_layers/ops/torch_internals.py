"""The private names of torch that operators, layers and the fused path use, because there is no public name.

No other file of these packages uses a private name of torch. ``tests/ops/test_torch_internals.py`` fails with a
sentence for each name that a new torch no longer has.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType, maybe_current_level, peek_interpreter_stack
from torch.nn.modules import module as torch_module
from torch.utils._python_dispatch import _disable_current_modes

PRIVATE_NAMES = {
    "torch.compiler._is_exporting_flag": "tell torch.export from torch.compile",
    "torch._C._functorch.maybe_current_level": "find a transform of torch.func",
    "torch._C._functorch.peek_interpreter_stack": "find which transform of torch.func is running",
    "torch._C._functorch.TransformType.Functionalize": "find torch.func.functionalize",
    "torch.autograd.forward_ad._current_level": "find forward-mode differentiation",
    "torch._C._dispatch_has_kernel_for_dispatch_key": "find the devices of an operator",
    "torch.utils._python_dispatch._disable_current_modes": "ask for implementations while tensors are traced or faked",
    "torch._dynamo.symbolic_convert.InstructionTranslator.current_tx": "find what torch.compile is tracing",
    "torch._dynamo.side_effects.SideEffects.is_modified": "find what the code that torch.compile traces has written",
    "torch._ops.OpOverload._schema": "name the arguments of an operator",
    "torch.nn.modules.module._global_forward_hooks": "find a forward hook of all modules",
    "torch.nn.modules.module._global_forward_pre_hooks": "find a forward pre-hook of all modules",
    "torch.nn.Module()._forward_hooks": "find the forward hooks of a module",
    "torch.nn.Module()._forward_pre_hooks": "find the forward pre-hooks of a module",
    "torch.nn.modules.module._global_backward_hooks": "find a backward hook of all modules",
    "torch.nn.modules.module._global_backward_pre_hooks": "find a backward pre-hook of all modules",
    "torch.nn.Module()._backward_hooks": "find the backward hooks of a module",
    "torch.nn.Module()._backward_pre_hooks": "find the backward pre-hooks of a module",
    "torch.nn.Module()._modules": "find a module that was replaced",
    "torch.nn.Module()._parameters": "read a parameter of a module",
    "torch.nn.Module()._buffers": "read a buffer of a module",
    "torch.nn.Module()._call_impl": "find a patched call of modules",
    "torch.nn.Module()._wrapped_call_impl": "find a patched call of modules",
    "torch.nn.Conv2d(1, 1, 1)._conv_forward": "find a patched convolution",
    "torch.nn.BatchNorm2d(1)._check_input_dim": "find a patched norm",
}
"""Each name, and the purpose for which the library uses it."""

CONTENTS = ("_modules", "_parameters", "_buffers")
"""The dictionaries of a module that contain modules and tensors."""

STATIC_SIZES = "_dynamo_marked_static"
"""The attribute of a class of modules by which torch.compile takes the sizes of their tensors for constants."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""The dictionaries of the hooks of a module."""

MODULE_CALLS = ("__call__", "_call_impl", "_wrapped_call_impl")
"""The methods of :class:`torch.nn.Module` by which a module is called."""

CONVOLUTION = "_conv_forward"
"""The method of :class:`torch.nn.Conv2d` that convolves."""

NORM_CHECK = "_check_input_dim"
"""The method of batch norms that checks their input."""

MODULE_METHODS = (*MODULE_CALLS, "forward", CONVOLUTION, NORM_CHECK)
"""The methods of torch's modules that run when a module is called."""


def is_exporting() -> bool:
    """Whether torch.export or an exporter of torch.onnx is running.

    ``torch.compiler.is_exporting()`` is also true under torch.compile.
    """
    return torch.compiler._is_exporting_flag or (is_tracing() and torch.onnx.is_in_onnx_export())


def is_plain(tensor: Any) -> bool:
    """Whether a tensor is one of torch's own. Others, such as distributed ones, compute what their classes define."""
    return type(tensor) in (nn.Parameter, Tensor)


def is_tracing() -> bool:
    """Whether torch.jit.trace is running, by itself or for torch.onnx's older exporter."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    return tracing


def is_traced_by_dynamo() -> bool:
    """Whether torch.compile is tracing the call, and not torch.export."""
    return torch.compiler.is_dynamo_compiling() and not is_exporting()


def is_written_by_traced_code(objects: Iterable[Any]) -> bool:
    """Whether code that torch.compile is tracing changes one of these objects, which happens only when it runs."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    effects = InstructionTranslator.current_tx().output.side_effects
    return any(item in effects and effects.is_modified(effects[item]) for item in objects)


def must_be_one_graph() -> bool:
    """Whether torch.compile may not leave the graph that it is tracing, which ``fullgraph=True`` forbids."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    translator = InstructionTranslator.current_tx()
    return bool(translator.one_graph or translator.error_on_graph_break)


def is_functionalized() -> bool:
    """Whether torch.func.functionalize is the innermost transform that is running."""
    return maybe_current_level() is not None and peek_interpreter_stack().key() == TransformType.Functionalize


def is_transformed() -> bool:
    """Whether a transform of torch.func or forward-mode differentiation is running."""
    return torch._C._functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0


def has_kernel(operator: str, dispatch_key: str) -> bool:
    """Whether an operator, 'namespace::name', has a kernel for 'CPU', 'CUDA', ..."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, dispatch_key)


def without_modes() -> AbstractContextManager[Any]:
    """Disable the modes that intercept operators, such as FakeTensorMode."""
    return _disable_current_modes()


def argument_names(overload: Any) -> tuple[str, ...]:
    """The arguments of an operator's schema, such as those of ``torch.ops.aten.add.Tensor``, in order."""
    return tuple(argument.name for argument in overload._schema.arguments)


def has_global_hooks() -> bool:
    """Whether a forward hook is registered for all modules."""
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def has_global_backward_hooks() -> bool:
    """Whether a backward hook is registered for all modules."""
    return bool(torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks)


def has_backward_hooks(module: nn.Module) -> bool:
    """Whether a backward hook is registered on a module."""
    return bool(module._backward_hooks or module._backward_pre_hooks)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether a forward hook is registered on a module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def value_of(module: nn.Module, name: str) -> Tensor | None:
    """The attribute of a module that its ``forward`` would read as ``module.name``: a parameter, a buffer or None.

    The replicas of DataParallel and modules whose parameters are computed have plain tensors as attributes.
    """
    attributes = vars(module)
    if name in attributes:
        value: Tensor | None = attributes[name]
        return value
    parameters = attributes["_parameters"]
    return parameters[name] if name in parameters else attributes["_buffers"].get(name)
