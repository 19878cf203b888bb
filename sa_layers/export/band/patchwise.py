"""Patchwise attention with its norms folded, as the operator takes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...layers import PatchwiseSelfAttention
from .folding import Affine, Layer, by_weight, fold_mapping, transforms_of
from .geometry import column_major

LARGEST_SHIFT = 1e30  # t / s must be finite in single precision


class FoldedPatchwise(NamedTuple):
    r"""The operands of patchwise attention.

    The first norm of the mapping has a scale s and a shift t for every feature of a footprint. If all scales are
    positive, :math:`\operatorname{relu}(s f + t) = s \operatorname{relu}(f + t / s)`, and s is folded into the first
    layer of the mapping, which saves a pass over all features. Features and weights have their taps column by column.
    """

    transform: Layer
    """Query, key and value as one layer of the input; the value's channels in the order of :func:`.by_weight`."""
    outside: Tensor
    """Its output beyond the border, under 'zeros' padding."""
    scale: list[Tensor]
    """s, if it is not folded."""
    shift: Tensor
    """t, or t / s."""
    weights: list[Tensor]
    """Of the mapping: (in, out) of each layer; the last has the taps of a weight side by side."""
    biases: list[Tensor]
    """Of all layers but the last: its bias is a row of its weight, for a hidden channel that is always 1.

    A mapping of one layer has no hidden channels, so its bias is here.
    """
    output_shift: list[Tensor]
    """The shift of a norm that follows; its scale is folded into the value."""
    relation: str
    channels: list[int]
    """Of query and key, value, and weights."""


def fold_patchwise(layer: PatchwiseSelfAttention, output: Affine | None = None) -> FoldedPatchwise:
    """Fold a layer and a norm that follows it."""
    query, key, value = transforms_of(layer)
    (scale, shift), layers = fold_mapping(layer.mapping)
    taps = torch.tensor(column_major(layer.footprint.kernel_size))
    features = order_of_features(layer.relation, len(query.bias), taps)
    scale, shift, layers[0] = scale[features], shift[features], layers[0].reading(features)
    scales = [scale]
    if bool((scale > 0).all()) and bool((shift / scale).abs().max() < LARGEST_SHIFT):
        layers[0], shift, scales = Layer(layers[0].weight * scale, layers[0].bias), shift / scale, []
    channels = [len(query.bias), len(value.bias), len(layers[-1].bias) // len(taps)]
    last = Layer(*(part.unflatten(0, (-1, len(taps)))[:, taps].flatten(0, 1) for part in layers.pop()))
    biases = [part.bias for part in layers] or [last.bias]
    weights = [part.weight for part in layers]
    if layers:
        weights[-1] = torch.cat([weights[-1], torch.zeros_like(weights[-1][:1])])
        biases[-1] = torch.cat([biases[-1], torch.ones_like(biases[-1][:1])])
        last = last._replace(weight=torch.cat([last.weight, last.bias.unsqueeze(1)], dim=1))
    if output is not None:
        value = value.then(output._replace(shift=torch.zeros_like(output.shift)))
    order = by_weight(channels)
    transform = query.joined(key, Layer(value.weight[order], value.bias[order]))
    return FoldedPatchwise(
        transform,
        torch.zeros_like(transform.bias),
        scales,
        shift,
        [weight.T for weight in (*weights, last.weight)],
        biases,
        [] if output is None else [output.shift[order]],
        layer.relation,
        channels,
    )


def order_of_features(relation: str, channels: int, taps: Tensor) -> Tensor:
    """The features of :func:`sa_layers.ops.patchwise_relation` with their taps in another order.

    A concatenation consists of the query, then the key of each tap.

    Example:
        >>> order_of_features("concatenation", 2, torch.tensor([0, 2, 1])).tolist()
        [0, 1, 2, 5, 4, 7, 3, 6]
    """
    if relation == "star":
        return taps
    if relation == "clique":
        return (taps.unsqueeze(1) * len(taps) + taps).flatten()
    if relation != "concatenation":
        raise NotImplementedError(f"there is no band graph for the relation {relation!r}")
    query = torch.arange(channels)
    keys = channels + query * len(taps) + taps.unsqueeze(1)
    return torch.cat([query, keys.flatten()])
