"""Biases of norms that leave no pre-activation near zero, so that rounding changes no mask of a ReLU."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .step import plain_torch


@torch.no_grad()
def open_gaps(module: nn.Module, features: Tensor) -> None:
    """Move the biases of norms, each after those before it, so that zero lies in a gap between the values of a channel.

    One flipped mask in a million changes every gradient by a thousandth: with gaps, the gradients of float32 can be
    compared with those of float64 to the rounding of float32.

    Args:
        module: Its norms are changed; parameters are rounded to float32.
        features: The input for which there are gaps.
    """
    for parameter in module.parameters():
        parameter.copy_(parameter.float())
    for buffer in module.buffers():
        buffer.copy_(buffer.float())
    other = copy.deepcopy(module)
    for norm in other.modules():
        if isinstance(norm, _BatchNorm) and norm.bias is not None:
            norm.register_forward_hook(_move)
    with plain_torch():
        other(features.detach())
    for (name, parameter), moved in zip(module.named_parameters(), other.parameters(), strict=True):
        if name.endswith("bias"):
            parameter.copy_(moved)


def _move(norm: Any, inputs: Any, output: Tensor) -> Tensor:
    values = output.transpose(0, 1).flatten(1).sort(dim=1).values
    gaps, middles = values.diff(dim=1), (values[:, 1:] + values[:, :-1]) / 2
    gaps = torch.where(middles.abs() < 0.3, gaps, 0)  # a small move, after which both signs occur as before
    if gaps.shape[1] == 0:
        return output
    widest = gaps.argmax(1, keepdim=True)
    moves = torch.where(gaps.amax(1) > 0, middles.gather(1, widest).squeeze(1), 0)
    before = norm.bias.clone()
    norm.bias.copy_((before - moves).float())
    return output + (norm.bias - before).view(-1, 1, 1)
