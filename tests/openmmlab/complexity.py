"""Multiply-adds of a classifier, counted as the paper's authors counted theirs, so that the figures can be compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sa_layers.layers import PairwiseSelfAttention
from sa_layers.layers.self_attention import SelfAttention

POOLS = (nn.MaxPool2d, nn.AdaptiveAvgPool2d)


def operations(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> int:
    """What one module does by itself; softmax, residual sums, copies and padding count nothing."""
    if isinstance(module, nn.Conv2d):
        per_output = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        return output.numel() * (per_output + (module.bias is not None))
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, _BatchNorm):
        return 2 * output.numel()
    if isinstance(module, nn.ReLU):
        return output.numel()
    if isinstance(module, POOLS):
        return inputs[0].numel()
    if isinstance(module, SelfAttention):
        taps = module.footprint.taps * output.shape[-2] * output.shape[-1]
        relation = taps * (module.relation_channels + 2) if isinstance(module, PairwiseSelfAttention) else 0
        return relation + taps * module.out_channels
    return 0


def count(model: nn.Module, size: int = 224) -> tuple[int, int]:
    """Parameters and multiply-adds for one image of ``size`` x ``size`` pixels."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal total
        total += operations(module, inputs, output)

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(parameter.numel() for parameter in model.parameters()), total
