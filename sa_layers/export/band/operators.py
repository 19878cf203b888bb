"""The operators that stand for attentions and their tables in a program, until they are translated to ONNX.

They have shapes and no kernels: torch.export records them, and :mod:`sa_layers.export.onnx_graph` translates them. One
operator for each attention keeps the program small, and so its export fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...ops import Footprint
from ...ops.footprint import output_size
from .geometry import Band

NAMESPACE = "sa_layers_export"
_library = torch.library.Library(NAMESPACE, "DEF")


def _define(schema: str) -> Any:
    """Define an operator, with the function below as its fake kernel, and return it."""
    name = schema.partition("(")[0]

    def register(fake: Any) -> Any:
        _library.define(schema)
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
        return getattr(getattr(torch.ops, NAMESPACE), name).default

    return register


@_define("tables(Tensor like, SymInt height, SymInt width, int[] sizes, bool zeros) -> (Tensor, Tensor, Tensor)")
def tables(like: Tensor, height: int, width: int, sizes: Sequence[int], zeros: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of pixels of a map, counted row by row, for all output pixels in the order of their segments.

    Args:
        like: A tensor on the device of the map.
        height: H.
        width: W.
        sizes: As :func:`sizes_of` returns them.
        zeros: Whether taps beyond the border read pixel ``H * W``, instead of the reflected pixel.

    Returns:
        The centre of every output pixel, (pixels,); its taps, (pixels * taps,), column by column; the window of every
        segment, (segments * window,), column by column.
    """
    band = band_of(sizes)
    out_height, out_width = output_size(height, width, band.footprint.stride)
    per_class = (out_width + band.classes - 1) // band.classes
    segments = out_height * band.classes * ((per_class + band.segment - 1) // band.segment)
    pixels = segments * band.segment
    numbers = (pixels, pixels * band.footprint.taps, segments * band.window)
    return tuple(like.new_empty(number, dtype=torch.int64) for number in numbers)  # type: ignore[return-value]


@_define("coordinates(Tensor like, SymInt height, SymInt width, int[] size, bool zeros) -> Tensor")
def coordinates(like: Tensor, height: int, width: int, size: Sequence[int], zeros: bool) -> Tensor:
    """The coordinates (x, y, 1) of all pixels of a map, row by row: (pixels, 3), then (0, 0, 0) if ``zeros``.

    Args:
        like: A tensor of the dtype of the coordinates.
        height: H.
        width: W.
        size: (height, width) of the map across which coordinates run from -1 to 1, or () for this one.
        zeros: Whether there is a pixel ``H * W`` beyond the border.
    """
    return like.new_empty(height * width + int(zeros), 3)


@_define(
    "pairwise_attention(Tensor maps, Tensor[] outside, Tensor[] tables, Tensor[] position, Tensor[] shift, "
    "Tensor[] weights, Tensor[] biases, str relation, int[] sizes, int[] channels, bool in_block) -> Tensor"
)
def pairwise_attention(
    maps: Tensor,
    outside: Sequence[Tensor],
    tables: Sequence[Tensor],
    position: Sequence[Tensor],
    shift: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    relation: str,
    sizes: Sequence[int],
    channels: Sequence[int],
    in_block: bool,
) -> Tensor:
    """Pairwise attention whose norms are folded; :class:`.pairwise.FoldedPairwise` describes the arguments."""
    return _like_output(maps, sizes, channels)


@_define(
    "patchwise_attention(Tensor maps, Tensor[] outside, Tensor[] tables, Tensor[] scale, Tensor shift, "
    "Tensor[] weights, Tensor[] biases, Tensor[] output_shift, str relation, int[] sizes, int[] channels, "
    "bool in_block) -> Tensor"
)
def patchwise_attention(
    maps: Tensor,
    outside: Sequence[Tensor],
    tables: Sequence[Tensor],
    scale: Sequence[Tensor],
    shift: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    output_shift: Sequence[Tensor],
    relation: str,
    sizes: Sequence[int],
    channels: Sequence[int],
    in_block: bool,
) -> Tensor:
    """Patchwise attention whose norms are folded; :class:`.patchwise.FoldedPatchwise` describes the arguments."""
    return _like_output(maps, sizes, channels)


def sizes_of(band: Band) -> list[int]:
    """A band as the operators take it: kernel size, stride, dilation, and the segment."""
    kernel_size, stride, dilation, _ = band.footprint
    return [*kernel_size, *stride, *dilation, band.segment]


def band_of(sizes: Sequence[int], padding_mode: str = "reflect") -> Band:
    """The band that an operator was given.

    Example:
        >>> band = Band.of(Footprint.parse(7))
        >>> band_of(sizes_of(band)) == band
        True
    """
    kernel_size, stride, dilation = ((sizes[index], sizes[index + 1]) for index in (0, 2, 4))
    return Band(Footprint(kernel_size, stride, dilation, padding_mode), sizes[6])


def _like_output(maps: Tensor, sizes: Sequence[int], channels: Sequence[int]) -> Tensor:
    height, width = output_size(maps.shape[2], maps.shape[3], band_of(sizes).footprint.stride)
    return maps.new_empty(maps.shape[0], channels[1], height, width)
