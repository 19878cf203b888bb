"""A mapping γ with frozen norms: whether it is one that a fused operator can stand for, and its parameters."""

from __future__ import annotations

from typing import Any

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
    """What a frozen mapping is computed from, in the order in which :func:`fold_mapping` takes it.

    Last come the norms' counts of batches: in training these alone tell that running statistics have changed, since
    the batch norm of torch updates those without counting up their versions.
    """
    # Straight from the dictionaries: this runs at every call, and attributes of modules are looked up slowly.
    tensors: list[Tensor | None] = []
    counts: list[Tensor | None] = []
    for module in mapping._modules.values():
        if isinstance(module, nn.Conv2d):
            tensors += [module._parameters["weight"], module._parameters["bias"]]
        elif module is not None and module._buffers:
            parameters, buffers = module._parameters, module._buffers
            tensors += [parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]]
            counts.append(buffers["num_batches_tracked"])
    return [tensor for tensor in (*tensors, *counts) if tensor is not None]


def fold_mapping(mapping: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The affine and the two linear layers that a frozen mapping comes down to.

    Args:
        mapping: The mapping that :func:`why_not_frozen` has nothing against; D, M and P are its widths.
        *tensors: Its :func:`mapping_tensors`.

    Returns:
        Scale and shift of the first norm, (D,); weight (M, D) and bias (M,) of the first linear layer with the second
        norm; weight (P, M) and bias (P,) of the last linear layer. In float32, or float64 for float64.
    """
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    first, hidden_weight, second, weight, bias = tensors[:4], tensors[4], tensors[5:9], tensors[9], tensors[10]
    scale, shift = _affine(mapping[0], *(tensor.to(dtype) for tensor in first))
    hidden_scale, hidden_bias = _affine(mapping[3], *(tensor.to(dtype) for tensor in second))
    hidden_weight = hidden_scale.unsqueeze(1) * hidden_weight.to(dtype).flatten(1)
    return scale, shift, hidden_weight, hidden_bias, weight.to(dtype).flatten(1), bias.to(dtype)


def _affine(norm: Any, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight * torch.rsqrt(variance + norm.eps)
    return scale, bias - mean * scale


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
