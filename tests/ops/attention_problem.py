"""What the problems of both attentions share: conversion of their arguments, and the comparison with the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers import reference
from sa_layers.ops import AffineReLU, MappingLayer
from sa_layers.reference import FrozenNorm

Normal = Callable[..., Tensor]


def make_mapping(normal: Normal, widths: Sequence[int], dtype: torch.dtype | None = None) -> list[MappingLayer]:
    """Random layers of these widths, each after a random norm; weights and biases in a dtype of their own, if any."""
    layers = []
    for inputs, outputs in pairwise(widths):
        scale, shift = normal(2, inputs)
        weight, bias = normal(outputs, inputs) / inputs**0.5, normal(outputs)
        layers.append(MappingLayer(scale, shift, weight.to(dtype or weight.dtype), bias.to(dtype or bias.dtype)))
    return layers


def reference_mapping(mapping: Sequence[MappingLayer]) -> list[reference.MappingLayer]:
    """A mapping as the reference takes it."""
    return [
        reference.MappingLayer(FrozenNorm(array(scale), array(shift)), array(weight), array(bias))
        for scale, shift, weight, bias in mapping
    ]


def convert(item: Any, device: torch.device | str, dtype: torch.dtype) -> Any:
    """Moves a tensor, or all tensors of a mapping, a position or an epilogue."""
    if isinstance(item, Tensor):
        return item.to(device, dtype)
    if hasattr(item, "_fields"):
        return type(item)(*(convert(part, device, dtype) for part in item))
    return [convert(part, device, dtype) for part in item] if isinstance(item, list) else item


def array(tensor: Tensor) -> NDArray:
    return tensor.detach().cpu().double().numpy()


def norm(epilogue: AffineReLU | None) -> FrozenNorm | None:
    """The epilogue as the reference takes it."""
    return None if epilogue is None else FrozenNorm(*map(array, epilogue))


def assert_agrees(output: Tensor, expected: NDArray, tolerance: float) -> None:
    """Compares a fused operator's output with the reference's, relative to the largest number."""
    wanted = torch.from_numpy(expected)
    assert output.is_contiguous(memory_format=torch.channels_last) or not output.numel()
    scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
    torch.testing.assert_close(output.cpu().double(), wanted, rtol=0, atol=tolerance * scale)
