"""Problems of pairwise attention, and their solution by the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sa_layers import reference
from sa_layers.ops import AffineReLU, MappingLayer, PairPosition, pairwise_attention

from .attention_problem import array, assert_agrees, make_mapping, norm, reference_mapping

# Channels of the relation, of the value, of the weights: SAN's stages; vectors that end in the middle; one channel.
WIDTHS = [(4, 16, 2), (16, 64, 8), (32, 128, 16), (64, 256, 32), (7, 9, 3), (3, 40, 20), (1, 1, 1)]
# Size of the map, kernel_size, stride, dilation.
GEOMETRIES = [
    ((6, 7), 3, 1, 1),
    ((9, 8), (3, 5), (2, 1), (1, 2)),
    ((3, 2), 7, 1, 1),
    ((1, 1), 3, 1, 1),
    ((5, 9), 5, 3, 2),
    ((9, 20), 7, 1, 1),
    ((12, 11), 9, 1, 1),
    # wide enough for a vector of pixels
    ((7, 16), 7, 1, 1),
    ((5, 30), (3, 5), (2, 1), (1, 2)),
    ((2, 13), (7, 3), 1, (1, 3)),
]


def mapping_widths(relation: str, channels: int, positions: int, weights: int, layers: int) -> list[int]:
    """The features of a pair, then the outputs of each layer."""
    inputs = {"dot": 1, "concatenation": 2 * channels}.get(relation, channels) + positions
    return [inputs, *[channels + 1] * (layers - 1), weights]


def operands(
    relation: str,
    widths: tuple[int, int, int],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    *,
    batch: int = 1,
    layers: int = 2,
    positions: int = 2,
    position_size: tuple[int, int] | None = None,
    epilogue: bool = False,
    seed: int = 0,
    mapping_dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """The arguments of a call but for its footprint; weights and biases in ``mapping_dtype``, by default float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
        return numbers.to(device, torch.promote_types(dtype, torch.float32))

    channels, value_channels, weight_channels = widths
    query, key, value = (
        normal(batch, number, *size).to(dtype).to(memory_format=torch.channels_last)
        for number in (channels, channels, value_channels)
    )
    mapping = make_mapping(
        normal, mapping_widths(relation, channels, positions, weight_channels, layers), mapping_dtype
    )
    position = PairPosition(normal(positions, 3), normal(positions, 3), position_size) if positions else None
    last = AffineReLU(normal(value_channels), normal(value_channels)) if epilogue else None
    maps = {"query": query, "key": key, "value": value}
    return maps | {"mapping": mapping, "relation": relation, "position": position, "epilogue": last}


def by_reference(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mapping: Sequence[MappingLayer],
    position: PairPosition | None = None,
    epilogue: AffineReLU | None = None,
    **options: Any,
) -> NDArray:
    """The output according to the reference, in float64."""
    if position is not None:
        options["position"] = reference.PairPosition(array(position.query), array(position.key), position.size)
    maps = array(query), array(key), array(value)
    return reference.pairwise_attention(*maps, reference_mapping(mapping), epilogue=norm(epilogue), **options)


def check(arguments: dict[str, Any], tolerance: float) -> Tensor:
    """Compares the operator with the reference."""
    output = pairwise_attention(**arguments)
    assert output.dtype == arguments["query"].dtype
    assert_agrees(output, by_reference(**arguments), tolerance)
    return output
