"""Problems of pairwise attention, and the check of the fused operator against what it is made of."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sa_layers.ops import AffineReLU, PairPosition, PairwiseMapping, fused, pairwise_attention

# relation, channels, channels of the value, of the weights: those of SAN's stages; parts of vectors; a single channel
WIDTHS = [(4, 16, 2), (16, 64, 8), (32, 128, 16), (64, 256, 32), (7, 9, 3), (3, 40, 20), (1, 1, 1)]
# height and width, kernel_size, stride, dilation
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


def operands(
    relation: str,
    widths: tuple[int, int, int],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    layers: int = 2,
    positions: int = 2,
    position_size: tuple[int, int] | None = None,
    epilogue: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[tuple[Tensor, Tensor, Tensor, PairwiseMapping], dict[str, Any]]:
    """Positional and keyword arguments of a call without its geometry."""
    generator = torch.Generator().manual_seed(seed)
    parameter_dtype = torch.promote_types(dtype, torch.float32)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, parameter_dtype)

    channels, value_channels, weight_channels = widths
    query, key, value = (
        normal(batch, number, *size).to(dtype).to(memory_format=torch.channels_last)
        for number in (channels, channels, value_channels)
    )
    inputs = {"dot": 1, "concatenation": 2 * channels}.get(relation, channels) + positions
    sizes = [inputs, *[channels + 1] * (layers - 1), weight_channels]
    weights = [normal(out, fan_in) / fan_in**0.5 for fan_in, out in pairwise(sizes)]
    mapping = PairwiseMapping(normal(inputs), normal(inputs), weights, [normal(out) for out in sizes[1:]])
    position = PairPosition(normal(positions, 3), normal(positions, 3), position_size) if positions else None
    last = AffineReLU(normal(value_channels), normal(value_channels)) if epilogue else None
    return (query, key, value, mapping), {"relation": relation, "position": position, "epilogue": last}


def in_float64(arguments: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    def convert(item: Any) -> Any:
        if isinstance(item, Tensor):
            return item.double()
        if isinstance(item, tuple) and hasattr(item, "_fields"):
            return type(item)(*map(convert, item))
        return [convert(part) for part in item] if isinstance(item, list) else item

    return tuple(map(convert, arguments)), {name: convert(item) for name, item in options.items()}


def check(arguments: tuple, options: dict[str, Any], geometry: dict[str, Any], tolerance: float) -> Tensor:
    """Fused against unfused in float64, relative to the largest output."""
    output = pairwise_attention(*arguments, **options, **geometry)
    wide_arguments, wide_options = in_float64(arguments, options)
    with fused(False):
        expected = pairwise_attention(*wide_arguments, **wide_options, **geometry)
    assert output.dtype == arguments[0].dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=tolerance * scale)
    return output
