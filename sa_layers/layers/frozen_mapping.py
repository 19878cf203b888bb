"""A mapping γ with frozen norms: whether it is one that a fused operator can stand for, and its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

# Exactly these classes: a subclass may compute anything. In evaluation a synchronised norm is a plain one.
LAYERS = ((nn.BatchNorm2d, nn.SyncBatchNorm), (nn.ReLU,), (nn.Conv2d,))
NUMBERS = {1: "one", 2: "two", 3: "three"}


def why_not_frozen(mapping: nn.Module, layers: Sequence[int] = (2,)) -> str | None:
    """One sentence on why the mapping's modules must be called one by one, or None.

    Args:
        mapping: What :func:`sa_layers.layers.make_mapping` made, or what has taken its place.
        layers: The numbers of linear layers that the operator has. Defaults to two.

    Example:
        >>> from sa_layers.layers import make_mapping
        >>> mapping = make_mapping(18, 16, 8, 2, nn.BatchNorm2d, nn.ReLU)
        >>> why_not_frozen(mapping)
        'mapping.0 is in training mode'
        >>> why_not_frozen(mapping.eval())
    """
    if type(mapping) is not nn.Sequential or len(mapping._modules) not in [3 * number for number in layers]:
        numbers = " or ".join(NUMBERS[number] for number in layers)
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
    """The affine and the linear layers that a frozen mapping comes down to.

    Args:
        mapping: The mapping that :func:`why_not_frozen` has nothing against, from D to P channels.
        *tensors: Its :func:`mapping_tensors`.

    Returns:
        Scale and shift of the first norm, (D,), then of each linear layer the weight (out, in) and the bias (out,) with
        the norm that follows, the last with P outputs. In float32, or float64 for float64.
    """
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    given = (tensor.to(dtype) for tensor in tensors)
    folded: list[Tensor] = []
    for norm, linear in zip(mapping[::3], mapping[2::3], strict=True):
        weight, bias, mean, variance = next(given), next(given), next(given), next(given)
        scale = weight * torch.rsqrt(variance + norm.eps)
        shift = bias - mean * scale
        if folded:
            folded[-2:] = [folded[-2] * scale.unsqueeze(1), folded[-1] * scale + shift]
        else:
            folded = [scale, shift]
        folded.append(next(given).flatten(1))
        folded.append(folded[-1].new_zeros(len(folded[-1])) if linear.bias is None else next(given))
    return tuple(folded)


def is_watched(module: nn.Module) -> bool:
    """Whether somebody would notice that a module is not called: a hook, or a forward of the instance's own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
