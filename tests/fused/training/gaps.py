"""Biases of norms that leave no pre-activation near zero, so that rounding changes no mask of a ReLU."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .step import plain_torch


@torch.no_grad()
def open_gaps(module: nn.Module, features: Tensor) -> float:
    """Move the biases of norms, each after those before it, so that zero lies in a gap between the values of a channel.

    One flipped mask in a million changes every gradient by a thousandth: with gaps, the gradients of float32 can be
    compared with those of float64 to the rounding of float32. The running statistics of norms in evaluation become
    similar to those of the batch, without which numbers would grow from layer to layer.

    Args:
        module: Its norms are changed; parameters and buffers are rounded to float32.
        features: The input for which there are gaps.

    Returns:
        By how much the winners of max-poolings at least win, unless they are zero behind a ReLU.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.copy_(tensor.float())
    other, margins = copy.deepcopy(module), [1.0]
    for norm in other.modules():
        if isinstance(norm, _BatchNorm):
            if not norm.training and norm.running_mean is not None:
                norm.register_forward_pre_hook(_calibrate)
            if norm.bias is not None:
                norm.register_forward_hook(_move)
        elif isinstance(norm, nn.MaxPool2d):
            norm.register_forward_pre_hook(lambda _, inputs: margins.append(_margin(inputs[0])))
    with plain_torch():
        other(features.detach())
    for norm, moved in zip(module.modules(), other.modules(), strict=True):
        if isinstance(norm, _BatchNorm):
            if norm.bias is not None:
                norm.bias.copy_(moved.bias)
            if not norm.training and norm.running_mean is not None:
                norm.running_mean.copy_(moved.running_mean)
                norm.running_var.copy_(moved.running_var)
    return min(margins)


def _calibrate(norm: Any, inputs: tuple[Tensor]) -> None:
    values = inputs[0].transpose(0, 1).flatten(1)
    var, mean = torch.var_mean(values, 1, correction=0)
    norm.running_var.mul_(torch.where(var > 1e-6, var, 1)).copy_(norm.running_var.float())
    norm.running_mean.mul_(norm.running_var.sqrt()).add_(mean).copy_(norm.running_mean.float())


def _move(norm: Any, inputs: Any, output: Tensor) -> Tensor:
    values = output.transpose(0, 1).flatten(1).sort(dim=1).values
    values = torch.cat([values[:, :1] - 1, values, values[:, -1:] + 1], 1)
    gaps, middles = values.diff(dim=1), (values[:, 1:] + values[:, :-1]) / 2
    # a wide gap by a small move, after which both signs occur as before
    best = (gaps.clamp(max=0.1) - 0.05 * middles.abs()).argmax(1, keepdim=True)
    before = norm.bias.clone()
    norm.bias.copy_((before - middles.gather(1, best).squeeze(1)).float())
    return output + (norm.bias - before).view(-1, 1, 1)


def _margin(features: Tensor) -> float:
    """The smallest distance of the largest and the second of 2x2 pixels."""
    first, second = F.unfold(features, 2, stride=2).unflatten(1, (-1, 4)).topk(2, dim=2).values.unbind(2)
    differences = (first - second)[first > 0]
    return float(differences.min()) if differences.numel() else 1.0
