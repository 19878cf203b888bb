"""The mapping γ of an attention as the operators take it: linear layers, each after a frozen norm and a ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import check_shape


class MappingLayer(NamedTuple):
    r"""A layer of a mapping with a frozen norm, :math:`y = W \max(s \odot x + t, 0) + b`.

    The tensors are those of a module; the kernels fold and pack them at every call, so a change has an effect at once.

    Args:
        scale: s, (in,); float32, or float64 for float64 features.
        shift: t, as ``scale``.
        weight: W, (out, in); the dtype of the features or of ``scale``.
        bias: b, (out,), as ``weight``.
    """

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor


Mapping = Sequence[MappingLayer]


class MappingOperands(NamedTuple):
    """A mapping as the operators' schemas take it: a tensor of each list belongs to a layer."""

    scales: list[Any]
    shifts: list[Any]
    weights: list[Any]
    biases: list[Any]


def operands_of(mapping: Mapping) -> MappingOperands:
    """The operands of a list of layers."""
    return MappingOperands(*(list(tensors) for tensors in zip(*mapping, strict=True)))


def apply_mapping(features: Tensor, mapping: Mapping) -> Tensor:
    """Compute a mapping in plain torch: (N, in, ...) -> (N, out, ...), in the dtype of ``scale``."""
    size = (-1, *[1] * (features.dim() - 2))
    for scale, shift, weight, bias in mapping:
        features = (features * scale.view(size) + shift.view(size)).relu()
        features = torch.einsum("oi,ni...->no...", weight.to(scale.dtype), features) + bias.to(scale.dtype).view(size)
    return features


def check_mapping(mapping: Mapping, most_layers: int, width: int, features: Tensor, given: str) -> list[int]:
    """Raise an error that names the first parameter that does not fit.

    Args:
        mapping: One to ``most_layers`` layers.
        most_layers: The number of layers that the operator supports.
        width: The features that the first layer reads.
        features: A map, whose dtype and device the parameters must fit.
        given: The arguments that determine the width, for the message.

    Returns:
        ``width``, then the outputs of each layer.
    """
    if not 1 <= len(mapping) <= most_layers or not all(isinstance(layer, MappingLayer) for layer in mapping):
        number = f"one to {most_layers}" if most_layers > 1 else "one"
        raise ValueError(f"mapping must consist of {number} MappingLayer, got {len(mapping)} items")
    widths = [width]
    for index, layer in enumerate(mapping):
        name = f"mapping[{index}]"
        check_shape(layer.scale, f"{name}.scale", (widths[-1],), given)
        check_shape(layer.shift, f"{name}.shift", (widths[-1],), given)
        check_shape(layer.weight, f"{name}.weight", ("out", widths[-1]), given)
        widths.append(layer.weight.shape[0])
        check_shape(layer.bias, f"{name}.bias", (widths[-1],), "its weight")
        check_coefficients(features, {f"{name}.scale": layer.scale, f"{name}.shift": layer.shift})
        for part, tensor in (("weight", layer.weight), ("bias", layer.bias)):
            if tensor.dtype != features.dtype:
                check_coefficients(features, {f"{name}.{part}": tensor})
        for part, tensor in zip(layer._fields, layer, strict=True):
            if tensor.device != features.device:
                raise ValueError(
                    f"{name}.{part} must be on the device of query, {features.device}, got {tensor.device}"
                )
    return widths


def check_coefficients(features: Tensor, coefficients: dict[str, Tensor]) -> None:
    """Raise an error unless coefficients have the dtype in which features are accumulated."""
    expected = torch.promote_types(features.dtype, torch.float32)
    for name, tensor in coefficients.items():
        if tensor.dtype != expected:
            raise TypeError(f"{name} must be {expected} for features of {features.dtype}, got {tensor.dtype}")
