"""The operators a second time, by other means: numpy.pad, sliding windows and einsum instead of indices and loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sa_layers.reference import BatchNorm, MappingLayer

Array = NDArray[Any]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return an int as a pair of itself, and a pair as it is."""
    return value if isinstance(value, tuple) else (value, value)


def windows(
    maps: Array,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "reflect",
) -> Array:
    """Unfold (N, C, H, W) to (N, C, Kh*Kw, Ho*Wo)."""
    extents = []
    for axis, (taps, step) in enumerate(zip(pair(kernel_size), pair(dilation), strict=True), start=2):
        padding = [(0, 0)] * 4
        padding[axis] = (step * (taps - 1) // 2,) * 2
        if padding_mode == "zeros":
            maps = np.pad(maps, padding)
        else:
            # A map of size 1 repeats. In numpy.pad that is the mode 'edge'; 'reflect' came to agree only later.
            maps = np.pad(maps, padding, mode="reflect" if maps.shape[axis] > 1 else "edge")
        extents.append(step * (taps - 1) + 1)
    stride_height, stride_width = pair(stride)
    dilation_height, dilation_width = pair(dilation)
    view = sliding_window_view(maps, extents, axis=(2, 3))  # type: ignore[call-overload]  # (N, C, H, W, extent, extent)
    view = view[:, :, ::stride_height, ::stride_width, ::dilation_height, ::dilation_width]
    batch, channels, rows, columns, kernel_height, kernel_width = view.shape
    unfolded: Array = view.transpose(0, 1, 4, 5, 2, 3).reshape(
        batch, channels, kernel_height * kernel_width, rows * columns
    )
    return unfolded


def centres(maps: Array, stride: int | tuple[int, int] = 1) -> Array:
    """Return (N, C, Ho*Wo), the pixels at the footprints' centres."""
    stride_height, stride_width = pair(stride)
    strided = maps[:, :, ::stride_height, ::stride_width]
    return strided.reshape(*maps.shape[:2], strided.shape[2] * strided.shape[3])


def output_size(size: tuple[int, ...], stride: int | tuple[int, int]) -> tuple[int, int]:
    """Return ceil(size / stride)."""
    rows, columns = (int(np.ceil(side / step)) for side, step in zip(size, pair(stride), strict=True))
    return rows, columns


def aggregation(value: Array, weight: Array, **options: Any) -> Array:
    """Aggregate, with channel c = group * Cw + w written as two axes."""
    unfolded = windows(value, **options)
    batch, channels, taps, pixels = unfolded.shape
    grouped = unfolded.reshape(batch, channels // weight.shape[1], weight.shape[1], taps, pixels)
    output: Array = np.einsum("ngwtp,nwtp->ngwp", grouped, weight)
    return output.reshape(batch, channels, *output_size(value.shape[2:], options.get("stride", 1)))


def softmax_aggregation(value: Array, logits: Array, **options: Any) -> Array:
    """Aggregate with weights that sum to 1."""
    weight = np.exp(logits - logits.max(axis=2, keepdims=True))
    return aggregation(value, weight / weight.sum(axis=2, keepdims=True), **options)


def pairwise_relation(query: Array, key: Array, relation: str, **options: Any) -> Array:
    """Relate centres to windows by broadcasting."""
    psi = windows(key, **options)
    phi = centres(query, options.get("stride", 1))[:, :, None, :]
    if relation == "concatenation":
        return np.concatenate([np.broadcast_to(phi, psi.shape), psi], axis=1)
    if relation == "dot":
        return np.einsum("ncup,nctp->ntp", phi, psi)[:, None]
    return {"summation": np.add, "subtraction": np.subtract, "hadamard": np.multiply}[relation](phi, psi)


def pair_position(query: Array, key: Array, size: tuple[int, int], **options: Any) -> Array:
    """Encode positions by windows of coordinates that run from -1 to 1 across the map."""
    rows, columns = (np.linspace(-1, 1, side) for side in size)
    grid = np.stack([*np.meshgrid(columns, rows), np.ones(size)])[None]
    here, there = (np.einsum("pc,nchw->nphw", matrix, grid) for matrix in (query, key))
    return pairwise_relation(here, there, "summation", **options)


def patchwise_relation(query: Array, key: Array, relation: str, **options: Any) -> Array:
    """Relate whole windows by einsum."""
    psi = windows(key, **options)
    batch, channels, taps, pixels = psi.shape
    phi = centres(query, options.get("stride", 1))
    if relation == "star":
        return np.einsum("ncp,nctp->ntp", phi, psi)[:, :, None]
    if relation == "clique":
        clique = np.einsum("ncjp,nckp->njkp", windows(query, **options), psi)
        return clique.reshape(batch, taps * taps, 1, pixels)
    return np.concatenate([phi, psi.reshape(batch, channels * taps, pixels)], axis=1)[:, :, None]


def mapping(features: Array, layers: Sequence[MappingLayer]) -> Array:
    """Apply norm, ReLU and linear layer in turn, by broadcasting and einsum."""
    for norm, weight, bias in layers:
        if isinstance(norm, BatchNorm):
            every_value = (0, 2, 3)
            features = features - features.mean(every_value, keepdims=True)
            features = features / np.sqrt(features.var(every_value, keepdims=True) + norm.eps)
        if norm is not None:
            features = features * norm[0][:, None, None] + norm[1][:, None, None]
        features = np.einsum("oc,nctp->notp", weight, np.maximum(features, 0))
        features = features + (0 if bias is None else bias[:, None, None])
    return features


def assert_gradients(
    function: Callable[..., Array],
    inputs: tuple[Array, ...],
    grad_output: Array,
    gradients: tuple[Array, ...],
    step: float = 1.0,
    tolerance: float = 1e-10,
) -> None:
    """Compare gradients with the central difference of <function, grad_output> along one random direction each.

    For a function of degree 2 at most in each input, a central difference is exact for any step.
    """
    generator = np.random.default_rng(0)
    assert len(gradients) == len(inputs)
    for index, gradient in enumerate(gradients):
        assert gradient.shape == inputs[index].shape
        direction = generator.standard_normal(inputs[index].shape)
        ahead, behind = (
            function(*inputs[:index], inputs[index] + sign * step * direction, *inputs[index + 1 :]) for sign in (1, -1)
        )
        expected = np.vdot((ahead - behind) / (2 * step), grad_output)
        np.testing.assert_allclose(np.vdot(gradient, direction), expected, rtol=tolerance, atol=100 * tolerance)
