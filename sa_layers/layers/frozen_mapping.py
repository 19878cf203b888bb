"""A mapping γ with frozen norms: whether it is one that a fused operator can stand for, and its parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# Exactly these classes: a subclass may compute anything. In evaluation a synchronised norm is a plain one.
LAYERS = (nn.BatchNorm2d, nn.ReLU, nn.Conv2d) * 2
ALIKE: dict[type, tuple[type, ...]] = {nn.BatchNorm2d: (nn.BatchNorm2d, nn.SyncBatchNorm)}


def why_not_frozen(mapping: nn.Module) -> str | None:
    """One sentence on why the mapping's modules must be called one by one, or None.

    Example:
        >>> from sa_layers.layers import make_mapping
        >>> mapping = make_mapping(18, 16, 8, 2, nn.BatchNorm2d, nn.ReLU)
        >>> why_not_frozen(mapping)
        'mapping.0 is in training mode'
        >>> why_not_frozen(mapping.eval())
    """
    if type(mapping) is not nn.Sequential or len(mapping) != len(LAYERS):
        return "the mapping has not two linear layers, each after a norm and an activation"
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "a hook watches every module"
    if _is_watched(mapping):
        return "a hook watches the mapping"
    for name, module in mapping._modules.items():
        expected = LAYERS[int(name)] if name.isdigit() and int(name) < len(LAYERS) else None
        if expected is None or type(module) not in ALIKE.get(expected, (expected,)):
            return f"mapping.{name} is a {type(module).__name__}"
        if _is_watched(module):
            return f"a hook watches mapping.{name}"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.training:
                return f"mapping.{name} is in training mode"
            if module.running_mean is None or module.weight is None:
                return f"mapping.{name} has no running statistics or no weight"
    return None


def mapping_tensors(mapping: nn.Module) -> list[Tensor]:
    """What a frozen mapping computes with: of each norm weight, bias, mean and variance; of each linear layer its own.

    They are 11: the first linear layer has no bias.
    """
    # Straight from the dictionaries: this runs at every call, and attributes of modules are looked up slowly.
    norm, _, linear, second_norm, _, second_linear = mapping._modules.values()
    assert norm is not None and linear is not None and second_norm is not None and second_linear is not None
    tensors = [
        *(norm._parameters["weight"], norm._parameters["bias"]),
        *(norm._buffers["running_mean"], norm._buffers["running_var"]),
        linear._parameters["weight"],
        *(second_norm._parameters["weight"], second_norm._parameters["bias"]),
        *(second_norm._buffers["running_mean"], second_norm._buffers["running_var"]),
        *(second_linear._parameters["weight"], second_linear._parameters["bias"]),
    ]
    return [tensor for tensor in tensors if tensor is not None]


def affine(epsilon: float, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the shift that a frozen norm comes down to, in float32, or float64 for float64."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    weight, bias, mean, variance = (tensor.to(dtype) for tensor in (weight, bias, mean, variance))
    scale = weight * torch.rsqrt(variance + epsilon)
    return scale, bias - mean * scale


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
