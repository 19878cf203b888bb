"""The operators in float64, from their definitions: pixels are gathered by index, and nothing of sa_layers is used.

Every number comes with its scale, to which rounding errors are relative: the sum of the absolute values of its terms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Estimate(NamedTuple):
    """Numbers and their scales, of the same shape."""

    value: Array
    scale: Array


class Footprint:
    """The pixels of every footprint: ``index``, (taps, Ho * Wo), into the pixels of a map; -1 for a padded zero."""

    def __init__(self, size: tuple[int, int], kernel_size: Any, stride: Any, dilation: Any, padding_mode: str) -> None:
        axes = [sources(*numbers, padding_mode) for numbers in zip(size, kernel_size, stride, dilation, strict=True)]
        rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
        index = np.where((rows < 0) | (columns < 0), -1, rows * size[1] + columns)
        self.size, self.stride, self.output_size = size, stride, index.shape[2:]
        self.index = index.reshape(index.shape[0] * index.shape[1], -1)

    def gather(self, maps: Array) -> Array:
        """(N, C, H, W) -> (N, C, taps, Ho * Wo)."""
        pixels = flat(maps)
        return np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=2)[:, :, self.index]

    def centre(self, maps: Array) -> Array:
        """(N, C, H, W) -> (N, C, 1, Ho * Wo)."""
        return flat(maps[:, :, :: self.stride[0], :: self.stride[1]])[:, :, None]

    def scatter(self, taps: Array) -> Array:
        """The transpose of ``gather``."""
        pixels = np.zeros((*taps.shape[:2], self.size[0] * self.size[1] + 1))
        np.add.at(pixels, (slice(None), slice(None), self.index), taps)
        return pixels[..., :-1].reshape(*taps.shape[:2], *self.size)

    def scatter_centre(self, pixels: Array) -> Array:
        """The transpose of ``centre``."""
        maps = np.zeros((*pixels.shape[:2], *self.size))
        maps[:, :, :: self.stride[0], :: self.stride[1]] = pixels.reshape(*pixels.shape[:2], *self.output_size)
        return maps

    def to_map(self, pixels: Array) -> Array:
        """(N, C, Ho * Wo) -> (N, C, Ho, Wo)."""
        return pixels.reshape(*pixels.shape[:2], *self.output_size)


def sources(size: int, taps: int, stride: int, dilation: int, padding_mode: str) -> Array:
    """(taps, outputs): the index along an axis of every tap of every footprint."""
    if padding_mode == "clamp":
        return np.array([nearest_window(pixel, size, taps, dilation) for pixel in range(0, size, stride)]).T
    index = (np.arange(taps) - taps // 2)[:, None] * dilation + np.arange(0, size, stride)
    if padding_mode == "zeros":
        return np.where((index >= 0) & (index < size), index, -1)
    period = max(2 * (size - 1), 1)
    index = index % period
    return np.minimum(index, period - index)


def nearest_window(pixel: int, size: int, taps: int, dilation: int) -> range:
    """Of all windows on an axis that are a multiple of the dilation away from a pixel, the nearest."""
    firsts = range(pixel % dilation, size - (taps - 1) * dilation, dilation)
    first = min(firsts, key=lambda first: abs(first + taps // 2 * dilation - pixel))
    return range(first, first + taps * dilation, dilation)


def flat(maps: Array, axes: int = 2) -> Array:
    """All axes but the first ``axes`` as one; unlike in reshape, there may be no image."""
    return maps.reshape(*maps.shape[:axes], int(np.prod(maps.shape[axes:])))


def merge(pixels: Array) -> Array:
    """(N, A, B, P) -> (N, A * B, P)."""
    return pixels.reshape(len(pixels), pixels.shape[1] * pixels.shape[2], pixels.shape[3])


def share(weight: Array, channels: int, groups: str) -> Array:
    """Channel c uses the weight c mod Cw or, in contiguous groups, c // (C / Cw)."""
    index, weights = np.arange(channels), weight.shape[1]
    return weight[:, index % weights if groups == "interleaved" else index // (channels // weights)]


def sum_shared(channels: Array, weights: int, groups: str) -> Array:
    """The transpose of ``share``."""
    sharing = channels.shape[1] // weights
    if groups == "interleaved":
        return channels.reshape(channels.shape[0], sharing, weights, *channels.shape[2:]).sum(1)
    return channels.reshape(channels.shape[0], weights, sharing, *channels.shape[2:]).sum(2)


def aggregate(value: Array, weight: Estimate, footprint: Footprint, groups: str = "interleaved") -> Estimate:
    """The weighted sum of every footprint."""
    taps, channels = footprint.gather(value), value.shape[1]
    result = (taps * share(weight.value, channels, groups)).sum(2)
    scale = (np.abs(taps) * share(weight.scale, channels, groups)).sum(2)
    return Estimate(footprint.to_map(result), footprint.to_map(scale))


def aggregation_gradients(
    grad: Array, value: Array, weight: Estimate, footprint: Footprint, groups: str = "interleaved"
) -> tuple[Estimate, Estimate]:
    """The gradients of the value and of the weight."""
    grad, taps = flat(grad)[:, :, None], footprint.gather(value)
    channels, weights = value.shape[1], weight.value.shape[1]
    of_value = Estimate(
        footprint.scatter(grad * share(weight.value, channels, groups)),
        footprint.scatter(np.abs(grad) * share(weight.scale, channels, groups)),
    )
    products = grad * taps
    return of_value, Estimate(*(sum_shared(item, weights, groups) for item in (products, np.abs(products))))


def softmax(logits: Estimate) -> Estimate:
    """Over the taps; ``logits.scale`` is that of their errors, zero for logits that are given."""
    distance = logits.value - logits.value.max(2, keepdims=True)
    power = np.exp(distance)
    weight = power / power.sum(2, keepdims=True)
    with np.errstate(invalid="ignore"):
        relative = 1 + np.where(weight > 0, np.abs(distance) + logits.scale, 0)
    scale = weight * (relative + (weight * relative).sum(2, keepdims=True))
    return Estimate(weight, scale + 1e-30)  # float32 has no smaller weights than 1e-38


def logits_gradient(grad_weight: Estimate, weight: Estimate) -> Estimate:
    """The gradient of a softmax over the taps."""
    mean = (weight.value * grad_weight.value).sum(2, keepdims=True)
    mean_scale = (weight.scale * grad_weight.scale).sum(2, keepdims=True)
    return Estimate(weight.value * (grad_weight.value - mean), weight.scale * (grad_weight.scale + mean_scale))


def pairwise_relation(query: Array, key: Array, relation: str, footprint: Footprint) -> Estimate:
    """(N, D, taps, Ho * Wo)."""
    neighbours = footprint.gather(key)
    centre = np.broadcast_to(footprint.centre(query), neighbours.shape)
    if relation == "concatenation":
        value = np.concatenate([centre, neighbours], axis=1)
        return Estimate(value, np.abs(value))
    if relation in ("hadamard", "dot"):
        value = centre * neighbours
        if relation == "dot":
            return Estimate(value.sum(1, keepdims=True), np.abs(value).sum(1, keepdims=True))
        return Estimate(value, np.abs(value))
    sign = 1 if relation == "summation" else -1
    return Estimate(centre + sign * neighbours, np.abs(centre) + np.abs(neighbours))


def pairwise_relation_gradients(
    grad: Array, query: Array, key: Array, relation: str, footprint: Footprint
) -> tuple[Estimate, Estimate]:
    """The gradients of the query and of the key."""
    channels, neighbours, centre = query.shape[1], footprint.gather(key), footprint.centre(query)
    if relation in ("hadamard", "dot"):
        of_query, of_key = grad * neighbours, grad * centre
    elif relation == "concatenation":
        of_query, of_key = grad[:, :channels], grad[:, channels:]
    else:
        of_query, of_key = grad, grad if relation == "summation" else -grad
    scales = np.abs(of_query), np.abs(of_key)
    return (
        Estimate(*(footprint.scatter_centre(item.sum(2)) for item in (of_query, scales[0]))),
        Estimate(*(footprint.scatter(item) for item in (of_key, scales[1]))),
    )


def patchwise_relation(query: Array, key: Array, relation: str, footprint: Footprint) -> Estimate:
    """(N, D, 1, Ho * Wo)."""
    if relation == "concatenation":
        keys = merge(footprint.gather(key))
        value = np.concatenate([footprint.centre(query), keys[:, :, None]], axis=1)
        return Estimate(value, np.abs(value))
    queries = (footprint.centre(query) if relation == "star" else footprint.gather(query))[:, :, :, None]
    products = queries * footprint.gather(key)[:, :, None]  # (N, C, 1 or taps, taps, P)
    return Estimate(*(merge(item.sum(1))[:, :, None] for item in (products, np.abs(products))))


def patchwise_relation_gradients(
    grad: Array, query: Array, key: Array, relation: str, footprint: Footprint
) -> tuple[Array, Array]:
    """The gradients of the query and of the key."""
    channels, taps, neighbours = query.shape[1], len(footprint.index), footprint.gather(key)
    batch, _, _, pixels = grad.shape
    if relation == "concatenation":
        of_query, of_key = grad[:, :channels], grad[:, channels:].reshape(batch, channels, taps, pixels)
        return footprint.scatter_centre(of_query[:, :, 0]), footprint.scatter(of_key)
    if relation == "star":
        of_query, of_key = (grad[:, None, :, 0] * item for item in (neighbours, footprint.centre(query)))
        return footprint.scatter_centre(of_query.sum(2)), footprint.scatter(of_key)
    grad = grad.reshape(batch, taps, taps, pixels)
    of_query = np.einsum("njkp,nckp->ncjp", grad, neighbours)
    of_key = np.einsum("njkp,ncjp->nckp", grad, footprint.gather(query))
    return footprint.scatter(of_query), footprint.scatter(of_key)


def affine_relu(features: Estimate, scale: Array, shift: Array) -> Estimate:
    """relu(scale * features + shift) of the channels, the second axis."""
    size = (-1, *[1] * (features.value.ndim - 2))
    before = features.value * scale.reshape(size) + shift.reshape(size)
    error = features.scale * np.abs(scale).reshape(size) + np.abs(shift).reshape(size)
    return Estimate(np.maximum(before, 0), np.where(before == -np.inf, 0, error))


def linear(features: Estimate, weight: Array, bias: Array) -> Estimate:
    """A linear layer of the channels, the second axis."""
    size = features.value.shape
    value, error = map(flat, features)
    results = weight @ value + bias[:, None], np.abs(weight) @ error + np.abs(bias)[:, None]
    return Estimate(*(item.reshape(size[0], len(weight), *size[2:]) for item in results))


def mapping(features: Estimate, layers: list[tuple[Array, ...]]) -> Estimate:
    """Layers of (scale, shift, weight, bias): a norm, a ReLU and a linear layer each."""
    for scale, shift, weight, bias in layers:
        features = linear(affine_relu(features, scale, shift), weight, bias)
    return features


def mapping_gradients(grad: Array, features: Array, layers: list[tuple[Array, ...]]) -> tuple[Array, list[Array]]:
    """The gradients of the features, (N, D, ...), and of the parameters of all layers, in order."""
    grad, inputs = flat(grad), [flat(features)]
    for layer in layers:
        inputs.append(mapping(Estimate(inputs[-1], np.abs(inputs[-1])), [layer]).value)
    gradients: list[Array] = []
    for (scale, shift, weight, _), entered in zip(layers[::-1], inputs[-2::-1], strict=True):
        before = entered * scale[:, None] + shift[:, None]
        of_weight = np.einsum("nop,nip->oi", grad, np.maximum(before, 0))
        of_bias = grad.sum((0, 2))
        grad = weight.T @ grad * (before > 0)
        gradients = [(grad * entered).sum((0, 2)), grad.sum((0, 2)), of_weight, of_bias, *gradients]
        grad = grad * scale[:, None]
    return grad.reshape(features.shape), gradients


def pair_position(query: Array, key: Array, coordinates: tuple[int, int] | None, footprint: Footprint) -> Estimate:
    """The position features of every pair, (1, P, taps, Ho * Wo)."""
    here, there = (np.tensordot(matrix, grid(coordinates, footprint), 1)[None] for matrix in (query, key))
    value = pairwise_relation(here, there, "summation", footprint).value
    return Estimate(value, np.full_like(value, np.abs(query).sum() + np.abs(key).sum()))


def pair_position_gradients(
    grad: Array, coordinates: tuple[int, int] | None, footprint: Footprint
) -> tuple[Array, Array]:
    """The gradients of both matrices, (P, 3), from that of the features of all images, (N, P, taps, Ho * Wo)."""
    of_maps = footprint.scatter_centre(grad.sum(2)), footprint.scatter(grad)
    of_query, of_key = (np.einsum("nphw,chw->pc", maps, grid(coordinates, footprint)) for maps in of_maps)
    return of_query, of_key


def grid(coordinates: tuple[int, int] | None, footprint: Footprint) -> Array:
    """The coordinates (x, y, 1) of all pixels, (3, H, W)."""
    vertical, horizontal = (
        (np.arange(length) - (length - 1) / 2) * 2 / (reach - 1) if reach > 1 else np.full(length, -1.0)
        for length, reach in zip(footprint.size, coordinates or footprint.size, strict=True)
    )
    return np.stack([*np.meshgrid(horizontal, vertical), np.ones(footprint.size)])


def max_pooling(features: Array) -> Array:
    """The maximum of every 2x2 pixels, (N, C, H, W), NaN if one is."""
    height, width = features.shape[2] // 2, features.shape[3] // 2
    blocks = features[:, :, : 2 * height, : 2 * width].reshape(*features.shape[:2], height, 2, width, 2)
    return blocks.max((3, 5))
