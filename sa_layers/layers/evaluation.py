"""What the evaluation paths share: when modules need not be called, frozen norms, and the layout of maps.

Evaluation computes channels last throughout: a map is (N, H, W, C) in memory, a linear layer one matrix product, a
frozen norm with its ReLU one pass. The modules stay what they are: where one is watched or replaced (a hook, a
gradient, another norm or activation, autocast, export, quantisation), all of them are called as usual.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # in evaluation a synchronised norm is a plain one


def why_not_passed_over(
    *,
    norms: Sequence[nn.Module],
    activations: Sequence[nn.Module],
    linear: Sequence[nn.Module],
    around: Sequence[nn.Module] = (),
) -> str | None:
    """One sentence on why modules must be called, or None: what they compute follows from their parameters.

    Args:
        norms: Must be batch norms with frozen statistics.
        activations: Must be ReLUs.
        linear: Must be 1x1 convolutions, all of one dtype.
        around: Modules of any type that would not be called either.

    Example:
        >>> why_not_passed_over(norms=[nn.BatchNorm2d(2)], activations=[], linear=[])
        'a BatchNorm2d is in training mode'
    """
    for module in [*norms, *activations, *linear, *around]:
        if is_watched(module):
            return f"a hook watches a {type(module).__name__}"
    for norm in norms:
        obstacle = why_not_affine(norm) if type(norm) in NORMS else "has the place of a batch norm"
        if obstacle:
            return f"a {type(norm).__name__} {obstacle}"
    for activation in activations:
        if type(activation) is not nn.ReLU:
            return f"a {type(activation).__name__} has the place of a ReLU"
    for layer in linear:
        if not is_pointwise(layer):
            return f"a {type(layer).__name__} has the place of a 1x1 convolution"
    if len({layer.weight.dtype for layer in linear}) > 1:
        return "the linear layers are of different dtypes"
    return None


def is_taken(features: Tensor, weight: Tensor) -> bool:
    """Whether a linear layer of this weight takes features as they are: autocast would convert them."""
    if torch.is_autocast_enabled(features.device.type):
        return False
    return weight.dtype == features.dtype and weight.device == features.device


def is_every_module_watched() -> bool:
    """Whether a hook is told of every call of any module."""
    return bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


def is_watched(module: nn.Module) -> bool:
    """Whether somebody would notice that a module is not called: a hook, or a forward of the instance's own."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a module is a 1x1 convolution, and so a matrix; no subclass, which may compute anything."""
    return type(layer) is nn.Conv2d and (layer.kernel_size, layer.stride, layer.padding, layer.groups) == (
        (1, 1),
        (1, 1),
        (0, 0),
        1,
    )


def why_not_affine(norm: nn.Module) -> str | None:
    """What keeps one of ``NORMS`` from coming down to a scale and a shift, or None."""
    if norm.training:
        return "is in training mode"
    if norm._buffers["running_mean"] is None or norm._parameters["weight"] is None:
        return "has no running statistics or no weight"
    return None


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The scale and the shift that a frozen norm comes down to, (C,) each; float32, or float64 for float64."""
    assert isinstance(norm, NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    scale = norm.weight.to(dtype) * torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
    return scale, norm.bias.to(dtype) - norm.running_mean.to(dtype) * scale


def pixels_of(features: Tensor) -> Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C), contiguous; a view where that is the layout already."""
    return features.permute(0, 2, 3, 1).contiguous()


def map_of(pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return pixels.permute(0, 3, 1, 2)


def in_layout_of(features: Tensor, result: Tensor) -> Tensor:
    """``result`` in the memory format of ``features``: code that takes a network's features may rely on it."""
    return result.contiguous() if features.is_contiguous() else result
