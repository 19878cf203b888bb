"""What the evaluation paths of block, stage and network share: when they may be taken, frozen norms, the layout.

Evaluation computes channels last throughout: a map is (N, H, W, C) in memory, a linear layer one matrix product, a
frozen norm with its ReLU one pass. The modules stay what they are: where one is watched or replaced (a hook, a
gradient, another norm or activation, autocast, export, quantisation), all of them are called as usual.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..ops import why_not_fused

# Exactly these, since a subclass may compute anything.
READABLE = (nn.BatchNorm2d, nn.Conv2d, nn.Identity, nn.MaxPool2d, nn.ReLU)


def may_pass_over(features: Tensor, modules: Iterable[nn.Module], containers: Iterable[nn.Module] = ()) -> bool:
    """Whether ``modules`` need not be called: what they compute follows from their parameters, and nobody looks.

    Args:
        features: What the first of them would be called with.
        modules: Linear layers, norms, activations, poolings.
        containers: Modules around them that would not be called either.
    """
    modules, containers = tuple(modules), tuple(containers)
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    if any(_is_watched(module) for module in (*modules, *containers)) or not all(map(_is_readable, modules)):
        return False
    if torch.is_autocast_enabled(features.device.type):
        return False
    tensors = tensors_of(modules)
    if any(module.weight.dtype != features.dtype for module in modules if isinstance(module, nn.Conv2d)):
        return False
    return why_not_fused([features, *tensors]) is None


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """All parameters and buffers of modules without children."""
    every = (tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values()))
    return [tensor for tensor in every if tensor is not None]


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The scale and the shift that a frozen batch norm comes down to, (C,) each; float32, or float64 for float64."""
    assert isinstance(norm, nn.BatchNorm2d)
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    weight, bias, mean, variance = (
        tensor.to(dtype) for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = weight * torch.rsqrt(variance + norm.eps)
    return scale, bias - mean * scale


def pixels_of(features: Tensor) -> Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C), contiguous; a view where that is the layout already."""
    return features.permute(0, 2, 3, 1).contiguous()


def map_of(pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return pixels.permute(0, 3, 1, 2)


def in_layout_of(features: Tensor, result: Tensor) -> Tensor:
    """``result`` in the memory format of ``features``: what takes a network's features may rely on its strides."""
    return result.contiguous() if features.is_contiguous() else result


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _is_readable(module: nn.Module) -> bool:
    if isinstance(module, nn.BatchNorm2d) and (module.training or module.running_mean is None or module.weight is None):
        return False
    return type(module) in READABLE
