"""Aggregation for exported programs: one row of taps at a time, which keeps the graph small."""

from __future__ import annotations

import torch
from torch import Tensor

from .footprint import Footprint
from .groups import broadcast_weight, split_channels


def aggregation_by_rows(value: Tensor, weight: Tensor, footprint: Footprint, groups: str) -> Tensor:
    """Aggregate (N, C, H, W) with weights (N, Cw, Kh * Kw, Ho * Wo), using operators that every runtime has.

    Exporters visit every node many times: 49 steps for a 7 x 7 footprint take minutes. A single step would make the
    runtime allocate the whole unfolded map.
    """
    accumulate = torch.promote_types(value.dtype, torch.float32)
    kernel_width = footprint.kernel_size[1]
    height, width = footprint.output_size(value.shape[2], value.shape[3])
    # the map with unfolded columns, (N, C / Cw, Cw, H, Kw, Wo), times a row of taps, (N, 1, Cw, Ho, Kw, Wo); with
    # contiguous groups (N, Cw, C / Cw, H, Kw, Wo) and (N, Cw, 1, Ho, Kw, Wo)
    taps, outputs = (torch.arange(length, device=value.device) for length in (kernel_width, width))
    columns = footprint.sources(1, taps.unsqueeze(1), outputs, value.shape[3])
    # padded before its channels are split: torch.onnx's TorchScript exporter takes the sizes that follow an unflatten
    # for constants, so none may be read
    padded = split_channels(footprint.pad(value.to(accumulate)), weight.shape[1], groups)
    unfolded = padded.index_select(-1, columns.flatten()).unflatten(-1, (kernel_width, width))
    weight = weight.to(accumulate).unflatten(-1, (height, width)).unflatten(2, footprint.kernel_size)
    output = value.new_zeros((), dtype=accumulate)
    for row, row_weight in enumerate(broadcast_weight(weight.transpose(3, 4), groups).unbind(3)):
        rows = _rows_under_tap(unfolded, footprint, row, value.shape[2], height)
        output = output + (rows * row_weight).sum(-2)
    return output.flatten(1, 2).to(value.dtype)


def _rows_under_tap(unfolded: Tensor, footprint: Footprint, tap: int, size: int, height: int) -> Tensor:
    """The rows that a row of taps reads for all output pixels, of a map with ``size`` rows: (..., height, Kw, Wo)."""
    if footprint.padding_mode == "clamp":
        return unfolded.index_select(-3, footprint.sources(0, tap, torch.arange(height, device=unfolded.device), size))
    stride = footprint.stride[0]
    rows = unfolded.narrow(-3, tap * footprint.dilation[0], (height - 1) * stride + 1)
    return rows[:, :, :, ::stride] if stride > 1 else rows
