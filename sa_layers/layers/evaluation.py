"""What the evaluation paths of block, stage and network share: when they may be taken, and the layout of their maps.

Evaluation computes channels last throughout: a map is (N, H, W, C) in memory, a linear layer one matrix product, a
frozen norm with its ReLU one pass. The modules stay what they are: where one is watched or replaced (a hook, a
gradient, another norm or activation, autocast, export, quantisation), all of them are called as usual.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from ..ops import Epilogue, why_not_fused
from ..ops.affine_relu import affine_relu
from .frozen_mapping import is_watched

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)  # in evaluation a synchronised norm is a plain one


def may_pass_over(
    features: Tensor,
    *,
    norms: Sequence[nn.Module],
    activations: Sequence[nn.Module],
    linear: Sequence[nn.Module],
    around: Sequence[nn.Module] = (),
) -> bool:
    """Whether modules need not be called: what they compute follows from their parameters, and nobody looks.

    Args:
        features: What the first of them would be called with.
        norms: Must be batch norms with frozen statistics.
        activations: Must be ReLUs.
        linear: Must be 1x1 convolutions in the dtype of ``features``.
        around: Modules of any type that would not be called either.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return False
    return (
        not any(map(is_watched, [*norms, *activations, *linear, *around]))
        and all(map(_is_frozen, norms))
        and all(type(activation) is nn.ReLU for activation in activations)
        and all(_is_pointwise(layer) and layer.weight.dtype == features.dtype for layer in linear)
        and not torch.is_autocast_enabled(features.device.type)
        and why_not_fused([features, *tensors_of([*norms, *linear])]) is None
    )


def tensors_of(modules: Sequence[nn.Module]) -> list[Tensor]:
    """All parameters and buffers of modules without children."""
    every = (tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values()))
    return [tensor for tensor in every if tensor is not None]


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The scale and the shift that a frozen norm comes down to, (C,) each; float32, or float64 for float64."""
    assert isinstance(norm, NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    dtype = torch.promote_types(norm.weight.dtype, torch.float32)
    scale = norm.weight.to(dtype) * torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
    return scale, norm.bias.to(dtype) - norm.running_mean.to(dtype) * scale


def conclude(attended: Tensor, epilogue: Epilogue | None) -> Tensor:
    """The norm and the ReLU behind an attention that was computed without them: (N, C, H, W) -> the same."""
    return attended if epilogue is None else map_of(affine_relu(pixels_of(attended), *epilogue))


def pixels_of(features: Tensor) -> Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C), contiguous; a view where that is the layout already."""
    return features.permute(0, 2, 3, 1).contiguous()


def map_of(pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return pixels.permute(0, 3, 1, 2)


def in_layout_of(features: Tensor, result: Tensor) -> Tensor:
    """``result`` in the memory format of ``features``: code that takes a network's features may rely on it."""
    return result.contiguous() if features.is_contiguous() else result


def _is_frozen(norm: nn.Module) -> bool:
    return type(norm) in NORMS and not norm.training and norm.running_mean is not None and norm.weight is not None


def _is_pointwise(layer: nn.Module) -> bool:
    # no subclass: it may compute anything
    return type(layer) is nn.Conv2d and (layer.kernel_size, layer.stride, layer.padding, layer.groups) == (
        (1, 1),
        (1, 1),
        (0, 0),
        1,
    )
