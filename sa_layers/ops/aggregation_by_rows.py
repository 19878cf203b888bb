"""Aggregation for exported programs: one row of taps at a time, which keeps the graph small."""

from __future__ import annotations

import torch
from torch import Tensor

from .footprint import Footprint


def aggregation_by_rows(value: Tensor, weight: Tensor, footprint: Footprint) -> Tensor:
    """Aggregate (N, C, H, W) with weights (N, Cw, Kh * Kw, Ho * Wo), using operators that every runtime has.

    Exporters visit every node many times: 49 steps for a 7 x 7 footprint take minutes. A single step would make the
    runtime allocate the whole unfolded map.
    """
    accumulate = torch.promote_types(value.dtype, torch.float32)
    kernel_width, stride, dilation = footprint.kernel_size[1], footprint.stride, footprint.dilation
    height, width = footprint.output_size(value.shape[2], value.shape[3])
    # the map with unfolded columns, (N, C / Cw, Cw, H, Kw, Wo), times a row of taps, (N, 1, Cw, Ho, Kw, Wo)
    taps = torch.arange(kernel_width, device=value.device) * dilation[1]
    columns = taps.unsqueeze(1) + torch.arange(width, device=value.device) * stride[1]
    # padded before its channels are split: torch.onnx's TorchScript exporter takes the sizes that follow an unflatten
    # for constants, so none may be read
    padded = footprint.pad(value.to(accumulate)).unflatten(1, (-1, weight.shape[1]))
    unfolded = padded.index_select(-1, columns.flatten()).unflatten(-1, (kernel_width, width))
    weight = weight.to(accumulate).unflatten(-1, (height, width)).unflatten(2, footprint.kernel_size)
    output = value.new_zeros((), dtype=accumulate)
    for row, row_weight in enumerate(weight.transpose(3, 4).unsqueeze(1).unbind(3)):
        rows = unfolded.narrow(-3, row * dilation[0], (height - 1) * stride[0] + 1)
        if stride[0] > 1:
            rows = rows[:, :, :, :: stride[0]]
        output = output + (rows * row_weight).sum(-2)
    return output.flatten(1, 2).to(value.dtype)
