"""The layers of aggregation as their papers define them: every neighbour unfolded, or a loop over windows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sa_layers.layers import (
    CARAFE,
    CARAFEPack,
    ConvexUpsampling,
    Involution2d,
    NeighborhoodAggregation,
    OutlookAttention,
)


def unfold(features: Tensor, kernel_size: int, dilation: int = 1, stride: int = 1) -> Tensor:
    """(N, C, H, W) -> (N, C, K * K, Ho * Wo), with zeros beyond the border."""
    padding = dilation * (kernel_size - 1) // 2
    return F.unfold(features, kernel_size, dilation, padding, stride).unflatten(1, (features.shape[1], -1))


def carafe(features: Tensor, masks: Tensor, kernel_size: int, groups: int, factor: int) -> Tensor:
    """mmcv's operator: masks (N, G * K * K, r * H, r * W) weight what each pixel of the larger map lies in."""
    batch, _, height, width = features.shape
    near = unfold(features, kernel_size).unflatten(-1, (height, width))
    near = near.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    masks = masks.view(batch, groups, 1, kernel_size**2, factor * height, factor * width)
    return (near.unflatten(1, (groups, -1)) * masks).sum(3).flatten(1, 2)


def carafe_pack(layer: CARAFEPack, features: Tensor) -> Tensor:
    masks = F.pixel_shuffle(layer.content_encoder(layer.channel_compressor(features)), layer.scale_factor)
    masks = masks.unflatten(1, (-1, layer.up_kernel**2)).softmax(2).flatten(1, 2)
    return carafe(features, masks, layer.up_kernel, layer.up_group, layer.scale_factor)


def convex_upsampling(layer: ConvexUpsampling, flow: Tensor, mask: Tensor) -> Tensor:
    batch, channels, height, width = flow.shape
    factor, taps = layer.factor, layer.kernel_size**2
    mask = mask.view(batch, 1, taps, factor, factor, height, width).softmax(2)
    near = unfold(layer.scale * flow, layer.kernel_size).view(batch, channels, taps, 1, 1, height, width)
    output = (mask * near).sum(2).permute(0, 1, 4, 2, 5, 3)
    return output.reshape(batch, channels, factor * height, factor * width)


def involution(layer: Involution2d, features: Tensor) -> Tensor:
    """As the authors' module in plain torch."""
    pooled = F.avg_pool2d(features, layer.stride) if layer.stride > 1 else features
    weight = layer.conv2(layer.conv1(pooled))
    batch, _, height, width = weight.shape
    weight = weight.view(batch, layer.groups, 1, layer.kernel_size**2, height * width)
    near = unfold(features, layer.kernel_size, layer.dilation, layer.stride)
    return (weight * near.unflatten(1, (layer.groups, -1))).sum(3).reshape(batch, layer.channels, height, width)


def outlook_attention(layer: OutlookAttention, features: Tensor) -> Tensor:
    """As the paper's algorithm 1, with F.fold."""
    batch, height, width, channels = features.shape
    taps, heads = layer.kernel_size**2, layer.num_heads
    value = unfold(layer.v(features).permute(0, 3, 1, 2), layer.kernel_size, 1, layer.stride)
    value = value.view(batch, heads, channels // heads, taps, -1)
    pooled = F.avg_pool2d(features.permute(0, 3, 1, 2), layer.stride, ceil_mode=True).permute(0, 2, 3, 1)
    attention = (layer.attn(pooled).view(batch, -1, heads, taps, taps) * layer.scale).softmax(-1)
    attended = torch.einsum("nphdk,nhckp->nhcdp", attention, value).reshape(batch, channels * taps, -1)
    folded = F.fold(attended, (height, width), layer.kernel_size, padding=layer.padding, stride=layer.stride)
    return layer.proj(folded.permute(0, 2, 3, 1))


def neighborhood_aggregation(layer: NeighborhoodAggregation, features: Tensor) -> Tensor:
    """A loop over the pixels, whose windows are found by a search."""
    batch, height, width, channels = features.shape
    qkv = layer.qkv(features).view(batch, height, width, 3, layer.num_heads, layer.head_dim)
    query, key, value = (item.squeeze(3) for item in qkv.split(1, 3))
    rows, columns = (
        window_of_each(side, taps, dilation)
        for side, taps, dilation in zip((height, width), layer.kernel_size, layer.dilation, strict=True)
    )
    outputs = []
    for row in range(height):
        for column in range(width):
            near = [(i, j) for i in rows[row] for j in columns[column]]
            logits = torch.stack([(layer.scale * query[:, row, column] * key[:, i, j]).sum(-1) for i, j in near], -1)
            if layer.rpb is not None:
                steps = [((i - row) // layer.dilation[0], (j - column) // layer.dilation[1]) for i, j in near]
                logits = logits + torch.stack(
                    [layer.rpb[:, a + layer.kernel_size[0] - 1, b + layer.kernel_size[1] - 1] for a, b in steps], -1
                )
            values = torch.stack([value[:, i, j] for i, j in near], 2)
            outputs.append((logits.softmax(-1).unsqueeze(-1) * values).sum(2).flatten(1))
    return layer.proj(torch.stack(outputs, 1).view(batch, height, width, channels))


def window_of_each(size: int, taps: int, dilation: int) -> list[range]:
    """The pixels of the window of every pixel of an axis: of all windows on it, the one whose centre is nearest."""
    chosen = []
    for pixel in range(size):
        phase = range(pixel % dilation, size, dilation)
        windows = [phase[first : first + taps] for first in range(len(phase) - taps + 1)]
        chosen.append(min(windows, key=lambda window: abs(window[taps // 2] - pixel)))
    return chosen


DEFINITIONS = {
    CARAFE: lambda layer, *operands: carafe(*operands, layer.up_kernel, layer.up_group, layer.scale_factor),
    CARAFEPack: carafe_pack,
    ConvexUpsampling: convex_upsampling,
    Involution2d: involution,
    OutlookAttention: outlook_attention,
    NeighborhoodAggregation: neighborhood_aggregation,
}


def by_definition(layer: nn.Module, *operands: Tensor) -> Tensor:
    """The output of a layer by its definition."""
    return DEFINITIONS[type(layer)](layer, *operands)
