"""The gradients of the mapping γ, and of the norm and ReLU that may follow an attention."""

from __future__ import annotations

import numpy as np

from sa_layers.reference.arrays import Float64Array, to_float64
from sa_layers.reference.compiled import compiled
from sa_layers.reference.mapping import (
    BatchNorm,
    FrozenNorm,
    Mapping,
    MappingLayer,
    Norm,
    apply_mapping,
    batch_statistics,
    normalize_and_rectify,
)


def mapping_backward(
    grad_output: Float64Array, features: Float64Array, mapping: Mapping
) -> tuple[Float64Array, list[MappingLayer]]:
    """Compute the gradients of `apply_mapping`, of its features (N, D, T, P) and of every array of the mapping."""
    inputs = [features]
    for layer in mapping[:-1]:
        inputs.append(apply_mapping(inputs[-1], [layer]))
    grad, gradients = grad_output, []
    for x, layer in zip(reversed(inputs), reversed(mapping), strict=True):
        activated = normalize_and_rectify(x, layer.norm)
        grad, grad_weight, grad_bias = _linear_backward(grad, activated, to_float64(layer.weight))
        grad, grad_norm = normalize_and_rectify_backward(grad, x, layer.norm)
        bias = None if layer.bias is None else grad_bias.astype(layer.bias.dtype)
        gradients.append(MappingLayer(grad_norm, grad_weight.astype(layer.weight.dtype), bias))
    return grad, gradients[::-1]


def normalize_and_rectify_backward(
    grad_output: Float64Array, features: Float64Array, norm: Norm | None
) -> tuple[Float64Array, Norm | None]:
    """Compute the gradients of `normalize_and_rectify`, of its features (N, D, T, P) and of the arrays of the norm."""
    grad = _rectify_backward(grad_output, normalize_and_rectify(features, norm))
    if norm is None:
        return grad, None
    if isinstance(norm, FrozenNorm):
        grad, grad_scale, grad_shift = _affine_backward(grad, features, to_float64(norm.scale))
        return grad, FrozenNorm(grad_scale.astype(norm.scale.dtype), grad_shift.astype(norm.shift.dtype))
    mean, variance = batch_statistics(features)
    deviation = np.sqrt(variance + norm.eps)
    standardized = (features - mean[:, None, None]) / deviation[:, None, None]
    grad, grad_weight, grad_bias = _affine_backward(grad, standardized, to_float64(norm.weight))
    grad = _standardize_backward(grad, standardized, deviation)
    return grad, BatchNorm(grad_weight.astype(norm.weight.dtype), grad_bias.astype(norm.bias.dtype), norm.eps)


@compiled
def _rectify_backward(grad_output: Float64Array, output: Float64Array) -> Float64Array:
    grad = np.empty_like(output)
    batch, channels, taps, pixels = output.shape
    for n in range(batch):
        for c in range(channels):
            for t in range(taps):
                for i in range(pixels):
                    grad[n, c, t, i] = 0.0 if output[n, c, t, i] <= 0.0 else grad_output[n, c, t, i]  # NaN passes on
    return grad


@compiled
def _affine_backward(
    grad_output: Float64Array, features: Float64Array, scale: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    grad_features, grad_scale, grad_shift = np.empty_like(features), np.zeros_like(scale), np.zeros_like(scale)
    batch, channels, taps, pixels = features.shape
    for n in range(batch):
        for c in range(channels):
            for t in range(taps):
                for i in range(pixels):
                    grad_features[n, c, t, i] = scale[c] * grad_output[n, c, t, i]
                    grad_scale[c] += features[n, c, t, i] * grad_output[n, c, t, i]
                    grad_shift[c] += grad_output[n, c, t, i]
    return grad_features, grad_scale, grad_shift


@compiled
def _standardize_backward(grad_output: Float64Array, output: Float64Array, deviation: Float64Array) -> Float64Array:
    """Through the mean and the variance, every value of a channel has an effect on every other."""
    grad = np.empty_like(output)
    batch, channels, taps, pixels = output.shape
    count = max(batch * taps * pixels, 1)
    for c in range(channels):
        through_mean, through_variance = 0.0, 0.0
        for n in range(batch):
            for t in range(taps):
                for i in range(pixels):
                    through_mean += grad_output[n, c, t, i] / count
                    through_variance += grad_output[n, c, t, i] * output[n, c, t, i] / count
        for n in range(batch):
            for t in range(taps):
                for i in range(pixels):
                    direct = grad_output[n, c, t, i]
                    grad[n, c, t, i] = (direct - through_mean - output[n, c, t, i] * through_variance) / deviation[c]
    return grad


@compiled
def _linear_backward(
    grad_output: Float64Array, features: Float64Array, weight: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array]:
    grad_features, grad_weight, grad_bias = np.zeros_like(features), np.zeros_like(weight), np.zeros(len(weight))
    batch, channels, taps, pixels = features.shape
    for n in range(batch):
        for o in range(len(weight)):
            for t in range(taps):
                for i in range(pixels):
                    grad_bias[o] += grad_output[n, o, t, i]
            for c in range(channels):
                for t in range(taps):
                    for i in range(pixels):
                        grad_features[n, c, t, i] += weight[o, c] * grad_output[n, o, t, i]
                        grad_weight[o, c] += features[n, c, t, i] * grad_output[n, o, t, i]
    return grad_features, grad_weight, grad_bias
