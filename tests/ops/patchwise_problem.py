"""Problems of patchwise attention, and their solution by the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers import reference
from sa_layers.ops import AffineReLU, Footprint, PatchwiseMapping, patchwise_attention
from sa_layers.reference import FrozenNorm, MappingLayer

from .attention_problem import array, assert_agrees, norm

Normal = Callable[..., Tensor]
# Channels of the relation, of the value, of the weights, kernel_size: few weights (vectors of pixels), weights that
# fill half a vector, a part of one, one, several; depths and panels that end in the middle.
WIDTHS = [
    (3, 6, 1, 3),
    (4, 16, 2, 3),
    (5, 9, 3, (3, 5)),
    (8, 32, 4, 7),
    (6, 20, 5, 3),
    (7, 14, 7, 3),
    (16, 64, 8, 7),
    (9, 24, 12, 3),
    (32, 128, 16, 7),
    (16, 48, 24, 5),
    (33, 80, 40, 3),
    (64, 256, 32, 7),
    (300, 320, 320, 3),
]


def make_mapping(normal: Normal, relation: str, channels: int, taps: int, weights: int) -> PatchwiseMapping:
    """A random mapping from the features of a footprint to the weights of its taps."""
    affine = {"concatenation": (1 + taps, channels), "star": (taps, 1), "clique": (taps * taps, 1)}[relation]
    return PatchwiseMapping(
        normal(*affine),
        normal(*affine),
        normal(*affine, weights) / (affine[0] * affine[1]) ** 0.5,
        normal(weights),
        normal(weights, taps, weights) / weights**0.5,
        normal(taps, weights),
    )


def operands(
    widths: tuple[int, int, int, Any],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    *,
    batch: int = 2,
    relation: str = "concatenation",
    epilogue: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """The arguments of a call; query, key and value are slices of one map, as a merged linear layer leaves them."""
    channels, value_channels, weights, kernel_size = widths
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=generator)
        return numbers.to(device, torch.promote_types(dtype, torch.float32))

    merged = normal(batch, 2 * channels + value_channels, *size).to(dtype)
    query, key, value = merged.contiguous(memory_format=torch.channels_last).split([channels] * 2 + [value_channels], 1)
    mapping = make_mapping(normal, relation, channels, Footprint.parse(kernel_size).taps, weights)
    last = AffineReLU(normal(value_channels), normal(value_channels)) if epilogue else None
    arguments = {"query": query, "key": key, "value": value, "mapping": mapping, "kernel_size": kernel_size}
    return arguments | {"relation": relation, "epilogue": last}


def reference_mapping(mapping: PatchwiseMapping, relation: str) -> list[MappingLayer]:
    """The same mapping in the reference's order: taps within a channel."""
    scale, shift, hidden_weight, hidden_bias, weight, bias = map(array, mapping)

    def by_channel(parameter: NDArray) -> NDArray:
        """(1 + taps, R, ...) -> (R + R * taps, ...), or (D, 1, ...) -> (D, ...)."""
        if relation != "concatenation":
            return parameter[:, 0]
        keys = np.swapaxes(parameter[1:], 0, 1).reshape(-1, *parameter.shape[2:])
        return np.concatenate([parameter[0], keys])

    outputs = np.transpose(weight, (2, 1, 0)).reshape(-1, len(weight))  # (Cw, taps, Cw) -> (Cw * taps, Cw)
    first_norm = FrozenNorm(by_channel(scale), by_channel(shift))
    return [
        MappingLayer(first_norm, by_channel(hidden_weight).T, hidden_bias),
        MappingLayer(None, outputs, bias.T.reshape(-1)),
    ]


def by_reference(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: PatchwiseMapping,
    relation: str = "concatenation",
    epilogue: AffineReLU | None = None,
    **options: Any,
) -> NDArray:
    """The output according to the reference, in float64."""
    maps, layers = (array(query), array(key), array(value)), reference_mapping(mapping, relation)
    return reference.patchwise_attention(*maps, layers, relation=relation, epilogue=norm(epilogue), **options)


def check(arguments: dict[str, Any], tolerance: float) -> Tensor:
    """Compares the operator with the reference."""
    output = patchwise_attention(**arguments)
    assert output.dtype == arguments["query"].dtype
    assert_agrees(output, by_reference(**arguments), tolerance)
    return output
