"""A mapping γ with frozen norms: whether it is one that a fused operator can stand for, and its parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# Exactly these classes: a subclass may compute anything. In evaluation a synchronised norm is a plain one.
LAYERS = ((nn.BatchNorm2d, nn.SyncBatchNorm), (nn.ReLU,), (nn.Conv2d,))


def why_not_frozen(mapping: nn.Module, layers: tuple[int, ...] = (2,)) -> str | None:
    """One sentence on why the mapping's modules must be called one by one, or None.

    Args:
        mapping: What :func:`sa_layers.layers.make_mapping` made, or what took its place.
        layers: The numbers of linear layers that the operator can compute.

    Example:
        >>> from sa_layers.layers import make_mapping
        >>> mapping = make_mapping(18, 16, 8, 2, nn.BatchNorm2d, nn.ReLU)
        >>> why_not_frozen(mapping)
        'mapping.0 is in training mode'
        >>> why_not_frozen(mapping.eval())
    """
    if type(mapping) is not nn.Sequential or len(mapping._modules) not in [3 * number for number in layers]:
        numbers = " or ".join(map(str, layers))
        return f"the mapping has not {numbers} linear layers, each after a norm and an activation"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "a hook watches every module"
    if is_watched(mapping):
        return "a hook watches the mapping"
    for index, (name, module) in enumerate(mapping._modules.items()):
        if type(module) not in LAYERS[index % 3]:
            return f"mapping.{name} is a {type(module).__name__}"
        if is_watched(module):
            return f"a hook watches mapping.{name}"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.training:
                return f"mapping.{name} is in training mode"
            if module.running_mean is None or module.weight is None:
                return f"mapping.{name} has no running statistics or no weight"
    return None


def mapping_tensors(mapping: nn.Module) -> list[Tensor]:
    """What a frozen mapping computes with: of each norm weight, bias, mean and variance; of each linear layer its own.

    For two layers they are 11: the first linear layer has no bias.
    """
    # straight from the dictionaries: this runs at every call, and a module's attributes are looked up slowly
    tensors: list[Tensor | None] = []
    for module in mapping._modules.values():
        parameters, buffers = module._parameters, module._buffers
        if parameters:
            tensors += [parameters["weight"], parameters["bias"]]
        if buffers:
            tensors += [buffers["running_mean"], buffers["running_var"]]
    return [tensor for tensor in tensors if tensor is not None]


def affine(norm: nn.Module, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the shift that a frozen norm comes down to, in float32, or float64 for float64."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    weight, bias, mean, variance = (tensor.to(dtype) for tensor in (weight, bias, mean, variance))
    scale = weight * torch.rsqrt(variance + norm.eps)
    return scale, bias - mean * scale


def is_watched(module: nn.Module) -> bool:
    """Whether somebody would notice that a module is not called: a hook, or a forward of the instance's own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
