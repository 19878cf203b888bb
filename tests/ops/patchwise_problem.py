"""Problems of patchwise attention, and their solution by the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers import reference
from sa_layers.ops import AffineReLU, Footprint, MappingLayer, patchwise_attention

from .attention_problem import array, assert_agrees, make_mapping, norm, reference_mapping

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


def mapping_widths(relation: str, channels: int, taps: int, weights: int) -> list[int]:
    """The features of a footprint, the hidden channels and the weights of all taps."""
    features = {"concatenation": (1 + taps) * channels, "star": taps, "clique": taps * taps}[relation]
    return [features, weights, weights * taps]


def operands(
    widths: tuple[int, int, int, Any],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    *,
    batch: int = 2,
    relation: str = "concatenation",
    epilogue: bool = False,
    mapping_dtype: torch.dtype | None = None,
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
    sizes = mapping_widths(relation, channels, Footprint.parse(kernel_size).taps, weights)
    mapping = make_mapping(normal, sizes, mapping_dtype)
    last = AffineReLU(normal(value_channels), normal(value_channels)) if epilogue else None
    arguments = {"query": query, "key": key, "value": value, "mapping": mapping, "kernel_size": kernel_size}
    return arguments | {"relation": relation, "epilogue": last}


def by_reference(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Sequence[MappingLayer],
    epilogue: AffineReLU | None = None,
    **options: Any,
) -> NDArray:
    """The output according to the reference, in float64."""
    maps = array(query), array(key), array(value)
    return reference.patchwise_attention(*maps, reference_mapping(mapping), epilogue=norm(epilogue), **options)


def check(arguments: dict[str, Any], tolerance: float) -> Tensor:
    """Compares the operator with the reference."""
    output = patchwise_attention(**arguments)
    assert output.dtype == arguments["query"].dtype
    assert_agrees(output, by_reference(**arguments), tolerance)
    return output
