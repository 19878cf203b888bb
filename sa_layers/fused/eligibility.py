"""Whether modules may be replaced by fused operators: by their structure alone, without reading a parameter's values.

A module may be replaced if its type, options and parameters determine what it computes, and if skipping its call has no
observable effect. Subclasses of torch's modules are never eligible: they may compute anything. Every ``why_not_...``
returns one sentence, or None if it finds no obstacle. Those of modules run when a plan is made, those of a call always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import why_not_fused
from ..ops.torch_internals import (
    MODULE_METHODS,
    NORM_CHECK,
    has_backward_hooks,
    has_forward_hooks,
    has_global_backward_hooks,
    has_global_hooks,
    is_plain,
    value_of,
)

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # in evaluation SyncBatchNorm computes what BatchNorm2d does
NUMBERS = {1: "one", 2: "two", 3: "three"}
PARENTS = {parent for norm in NORMS for parent in norm.__mro__}
HOOKED = "has a forward hook or an overridden forward"
CAST = (torch.float32, torch.bfloat16, torch.float16)  # what autocast converts


def why_not_this_call(tensors: Sequence[Tensor], training: bool = False) -> str | None:
    """What keeps a call from the fused path, whatever the module.

    The check includes the backend, so each call looks it up only once.

    Args:
        tensors: What the operators would read, the features first.
        training: Whether the path is that of training, which has gradients. Defaults to False.
    """
    if has_global_hooks():
        return "a forward hook is registered for all modules"
    if training and has_global_backward_hooks():
        return "a backward hook is registered for all modules"
    if not is_plain(tensors[0]):
        return f"the features are a {type(tensors[0]).__name__}"
    return why_not_fused(tensors, differentiable=training)


def accepts(features: Tensor, weight: Tensor, training: bool = False) -> bool:
    """Whether a linear layer would accept the features: dtype and device match, or autocast makes the dtype match."""
    return why_not_accepted(features, weight, training) is None


def why_not_accepted(features: Tensor, weight: Tensor, training: bool = False) -> str | None:
    """What keeps a linear layer from accepting the features.

    Args:
        features: The input of the layer.
        weight: Its weight.
        training: Whether the fused path is that of training, which supports autocast on every device. Defaults to
            False.

    Example:
        >>> why_not_accepted(torch.zeros(1, dtype=torch.float64), torch.zeros(1))
        'the features are torch.float64 and the parameters torch.float32'
    """
    if not isinstance(features, Tensor):
        return "torch.fx records the call, whose features are symbols"
    casts = features.device.type != "meta" and torch.is_autocast_enabled(features.device.type)  # an error for meta
    if casts and not training and features.device.type != "cpu":
        return "autocast is enabled"
    casts = casts and features.dtype in CAST and weight.dtype in CAST
    if weight.dtype != features.dtype and not casts:
        return f"the features are {features.dtype} and the parameters {weight.dtype}"
    if weight.device != features.device:
        return f"the features are on {features.device} and the parameters on {weight.device}"
    return None


def why_not_modules(
    *,
    norms: Sequence[nn.Module],
    activations: Sequence[nn.Module],
    linear: Sequence[nn.Module],
    containers: Sequence[nn.Module] = (),
    training: bool = False,
) -> str | None:
    """What keeps modules from being replaced.

    Args:
        norms: Must be batch norms with frozen statistics, or ``nn.Identity``.
        activations: Must be ReLUs.
        linear: Must be 1x1 convolutions, all of one dtype.
        containers: Modules of any type that would not be called either.
        training: Whether they are replaced in training: norms may use batch statistics then, and backward hooks count.
            Defaults to False.

    Example:
        >>> why_not_modules(norms=[nn.BatchNorm2d(2)], activations=[], linear=[])
        'a BatchNorm2d is in training mode'
    """
    for module in containers:
        if has_hooks(module, training):
            return f"a {type(module).__name__} {HOOKED}"
    for modules, obstacle_of in ((norms, why_not_norm), (activations, why_not_relu), (linear, why_not_linear)):
        for module in modules:
            if obstacle := obstacle_of(module, training):
                return f"a {type(module).__name__} {obstacle}"
    if len({layer.weight.dtype for layer in linear}) > 1:
        return "the linear layers have different dtypes"
    return None


def why_not_mapping(mapping: nn.Module, layers: Sequence[int] = (2,), training: bool = False) -> str | None:
    """What keeps a mapping γ from being part of a fused operator.

    Args:
        mapping: What :func:`sa_layers.layers.make_mapping` made, or a module that was assigned in its place.
        layers: The numbers of linear layers that the operator supports. Defaults to two.
        training: As for :func:`why_not_modules`.

    Example:
        >>> from sa_layers.layers import make_mapping
        >>> mapping = make_mapping(18, 16, 8, 2, nn.BatchNorm2d, nn.ReLU)
        >>> why_not_mapping(mapping)
        'mapping.0 is in training mode'
        >>> why_not_mapping(mapping.eval())
    """
    if type(mapping) is not nn.Sequential or len(mapping) not in [3 * number for number in layers]:
        numbers = " or ".join(NUMBERS[number] for number in layers)
        return f"the mapping does not consist of {numbers} linear layers, each after a norm and an activation"
    if has_hooks(mapping, training):
        return f"the mapping {HOOKED}"
    obstacles = (why_not_norm, why_not_relu, why_not_linear)
    for index, (name, module) in enumerate(mapping.named_children()):
        if obstacle := obstacles[index % 3](module, training):
            return f"mapping.{name} {obstacle}"
    return None


def why_not_norm(norm: nn.Module, training: bool = False) -> str | None:
    """What keeps a norm from being a scale and a shift for each channel."""
    if type(norm) is nn.Identity:  # tools that multiply a norm into a convolution leave one in its place
        return HOOKED if has_hooks(norm, training) else None
    if not computes_as_torch(norm):
        return f"is a {type(norm).__name__} instead of a BatchNorm2d"
    if has_hooks(norm, training):
        return HOOKED
    if norm.training and not training:
        return "is in training mode"
    if training and not isinstance(norm.momentum, float | int | None):
        return f"has {norm.momentum!r} as its momentum"
    for name in NORM_TENSORS:
        value = value_of(norm, name)
        if value is None and not training:
            return "has no running statistics, no weight or no bias"
        if value is not None and not is_plain(value):
            return f"has a {type(value).__name__} as its {name}"
    return None if isinstance(norm.eps, float | int) and norm.eps > 0 else f"has {norm.eps!r} as its eps"


def computes_as_torch(norm: nn.Module) -> bool:
    """Whether a norm is one of torch's, or of a subclass that only changes the check of its input, as mmengine's."""
    kind = type(norm)
    if kind in NORMS:
        return True
    if not isinstance(norm, NORMS):
        return False
    own = {name for parent in kind.__mro__ if parent not in PARENTS for name in vars(parent)}
    return own <= {NORM_CHECK, "__module__", "__doc__", "__qualname__", "__firstlineno__", "__static_attributes__"}


def why_not_relu(activation: nn.Module, training: bool = False) -> str | None:
    """What keeps an activation from being a ReLU."""
    if type(activation) is not nn.ReLU:
        return f"is a {type(activation).__name__} instead of a ReLU"
    return HOOKED if has_hooks(activation, training) else None


def why_not_linear(layer: nn.Module, training: bool = False) -> str | None:
    """What keeps a convolution from being a matrix product."""
    if type(layer) is not nn.Conv2d:
        return f"is a {type(layer).__name__} instead of a 1x1 convolution"
    if not is_pointwise(layer):
        return "is not a 1x1 convolution"
    if has_hooks(layer, training):
        return HOOKED
    weight = value_of(layer, "weight")
    return None if is_plain(weight) else f"has a {type(weight).__name__} as its weight"


def has_hooks(module: nn.Module, training: bool = False) -> bool:
    """Whether skipping a module could be observed: it has a hook, or the instance a method of its own.

    Backward hooks count in training only.
    """
    if has_forward_hooks(module) or (training and has_backward_hooks(module)):
        return True
    own = vars(module)
    return any(name in own for name in MODULE_METHODS)


def is_pointwise(layer: Any) -> bool:
    """Whether a module is exactly a 1x1 convolution, and so a matrix product."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (1, 1)
        and layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )
