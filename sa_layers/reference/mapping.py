"""The mapping γ of both attentions: a norm, a ReLU and a linear layer, one or several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from sa_layers.reference.arrays import Float64Array, FloatArray, check_array, to_float64
from sa_layers.reference.compiled import compiled


class FrozenNorm(NamedTuple):
    """An affine map of each channel, ``scale * x + shift``: a norm with running statistics, as in evaluation.

    Args:
        scale: (D,), float16, float32 or float64.
        shift: (D,).
    """

    scale: FloatArray
    shift: FloatArray


class BatchNorm(NamedTuple):
    """Batch normalisation in training mode, ``weight * (x - mean) / sqrt(variance + eps) + bias``.

    The mean and the biased variance of each channel are those of all its values: of every image, pixel and tap.

    Args:
        weight: (D,), float16, float32 or float64; the γ of batch normalisation.
        bias: (D,), the β of batch normalisation.
        eps: Added to the variance, at least 0. Defaults to 1e-5.
    """

    weight: FloatArray
    bias: FloatArray
    eps: float = 1e-5


Norm: TypeAlias = FrozenNorm | BatchNorm


class MappingLayer(NamedTuple):
    """One layer of a mapping, ``weight @ relu(norm(x)) + bias``.

    Args:
        norm: The norm before the ReLU, or None for none.
        weight: (out, D), float16, float32 or float64.
        bias: (out,), or None (default) for none.
    """

    norm: Norm | None
    weight: FloatArray
    bias: FloatArray | None = None


Mapping: TypeAlias = Sequence[MappingLayer]


def apply_mapping(features: Float64Array, mapping: Mapping) -> Float64Array:
    """Apply the layers of a mapping in turn, (N, D, T, P) -> (N, out, T, P)."""
    for layer in mapping:
        activated = normalize_and_rectify(features, layer.norm)
        weight = to_float64(layer.weight)
        bias = np.zeros(len(weight)) if layer.bias is None else to_float64(layer.bias)
        features = _apply_linear(activated, weight, bias)
    return features


def normalize_and_rectify(features: Float64Array, norm: Norm | None) -> Float64Array:
    """Compute ``relu(norm(features))`` for (N, D, T, P)."""
    scale: Float64Array = np.ones(features.shape[1])
    shift: Float64Array = np.zeros(features.shape[1])
    if isinstance(norm, FrozenNorm):
        scale, shift = to_float64(norm.scale), to_float64(norm.shift)
    elif isinstance(norm, BatchNorm):
        mean, variance = batch_statistics(features)
        scale = to_float64(norm.weight) / np.sqrt(variance + norm.eps)
        shift = to_float64(norm.bias) - scale * mean
    return _apply_affine_and_relu(features, scale, shift)


def check_mapping(mapping: Any, in_channels: int) -> int:
    """Raise unless mapping is a sequence of layers that fit one another and ``in_channels``; return its outputs."""
    if not isinstance(mapping, Sequence) or not all(isinstance(layer, MappingLayer) for layer in mapping):
        raise TypeError(f"mapping must be a sequence of MappingLayer, got {mapping!r}")
    if not mapping:
        raise ValueError("mapping must have at least one layer, got none")
    channels = in_channels
    for index, (norm, weight, bias) in enumerate(mapping):
        name = f"mapping[{index}]"
        check_norm(f"{name}.norm", norm, channels)
        check_array(f"{name}.weight", weight)
        if weight.ndim != 2 or weight.shape[1] != channels or weight.shape[0] < 1:
            raise ValueError(f"{name}.weight must have shape (out, {channels}), got {weight.shape}")
        channels = weight.shape[0]
        if bias is not None:
            _check_vector(f"{name}.bias", bias, channels)
    return channels


def check_weight_channels(outputs: int, value: FloatArray, taps: int = 1) -> None:
    """Raise unless a mapping's outputs are Cw weights of each of its taps, where Cw divides the channels of value."""
    channels = value.shape[1]
    if outputs % taps != 0 or channels % (outputs // taps) != 0:
        allowed = f"Cw * {taps} outputs" if taps > 1 else "Cw outputs"
        raise ValueError(f"mapping must have {allowed}, where Cw divides value's {channels} channels, got {outputs}")


def check_norm(name: str, norm: Any, channels: int) -> None:
    """Raise unless norm is None, or a norm of so many channels."""
    if norm is None:
        return
    if not isinstance(norm, (FrozenNorm, BatchNorm)):
        raise TypeError(f"{name} must be a FrozenNorm, a BatchNorm or None, got {type(norm).__name__}")
    for field, array in zip(norm._fields[:2], norm[:2], strict=True):
        _check_vector(f"{name}.{field}", array, channels)
    if isinstance(norm, BatchNorm) and not norm.eps >= 0:
        raise ValueError(f"{name}.eps must be at least 0, got {norm.eps!r}")


def _check_vector(name: str, array: Any, size: int) -> None:
    check_array(name, array)
    if array.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {array.shape}")


@compiled
def batch_statistics(features: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return the mean and the biased variance of each channel of (N, D, T, P)."""
    batch, channels, taps, pixels = features.shape
    mean, variance = np.zeros(channels), np.zeros(channels)
    count = max(batch * taps * pixels, 1)  # of an empty batch, too, the mean is a number
    for n in range(batch):
        for c in range(channels):
            for t in range(taps):
                for i in range(pixels):
                    mean[c] += features[n, c, t, i] / count
    for n in range(batch):
        for c in range(channels):
            for t in range(taps):
                for i in range(pixels):
                    variance[c] += (features[n, c, t, i] - mean[c]) ** 2 / count
    return mean, variance


@compiled
def _apply_affine_and_relu(features: Float64Array, scale: Float64Array, shift: Float64Array) -> Float64Array:
    output = np.empty_like(features)
    batch, channels, taps, pixels = features.shape
    for n in range(batch):
        for c in range(channels):
            for t in range(taps):
                for i in range(pixels):
                    x = scale[c] * features[n, c, t, i] + shift[c]
                    output[n, c, t, i] = 0.0 if x < 0.0 else x  # NaN stays NaN
    return output


@compiled
def _apply_linear(features: Float64Array, weight: Float64Array, bias: Float64Array) -> Float64Array:
    batch, channels, taps, pixels = features.shape
    output = np.empty((batch, len(weight), taps, pixels))
    for n in range(batch):
        for o in range(len(weight)):
            output[n, o] = bias[o]
            for c in range(channels):
                for t in range(taps):
                    for i in range(pixels):
                        output[n, o, t, i] += weight[o, c] * features[n, c, t, i]
    return output
