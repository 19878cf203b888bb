"""The aggregation layers that are timed, without their linear layers: ours, and sums over unfolded neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import OutlookAttention, na2d_av, na2d_qk
from ..layers.reassembly import reassemble
from ..ops import ALL_PADDING_MODES, Footprint, aggregation
from .problems import OURS, Operator, Problem

UNFOLD = "unfold"


def involution(dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem of RedNet's second stage: 16 channels share a kernel of 7 x 7."""
    footprint = Footprint.parse(7, padding_mode="zeros")
    return _problem(
        "involution",
        (torch.randn(1, 128, 28, 28), torch.randn(1, 8, 49, 784)),
        footprint,
        lambda value, weight, _: aggregation(value, weight, *footprint, groups="contiguous"),
        lambda value, weight, _: _unfold_multiply_sum(value, weight, footprint, 16).view_as(value),
        128,
        784,
        dtype,
        device,
    )


def carafe(dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem of FPN_CARAFE: 256 channels, kernels of 5 x 5, twice the size."""
    footprint = Footprint.parse(5, padding_mode="zeros")

    def unfold(features: Tensor, logits: Tensor, _: Footprint) -> Tensor:
        masks = F.pixel_shuffle(logits, 2).softmax(1).unsqueeze(1)
        near = footprint.unfold(features).unflatten(-1, features.shape[2:])
        return (near.repeat_interleave(2, -2).repeat_interleave(2, -1) * masks).sum(2)

    return _problem(
        "CARAFE",
        (torch.randn(1, 256, 25, 42), torch.randn(1, 100, 25, 42)),
        footprint,
        lambda features, logits, _: reassemble(features, logits, 5, 1, 2, normalise=True),
        unfold,
        256,
        4 * 25 * 42,
        dtype,
        device,
    )


def convex_upsampling(dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem of RAFT on an image of 440 x 1024."""
    footprint = Footprint.parse(3, padding_mode="zeros")

    def unfold(flow: Tensor, mask: Tensor, _: Footprint) -> Tensor:
        height, width = flow.shape[2:]
        near = footprint.unfold(flow).view(1, 2, 9, 1, 1, height, width)
        output = (mask.view(1, 1, 9, 8, 8, height, width).softmax(2) * near).sum(2)
        return output.permute(0, 1, 4, 2, 5, 3).reshape(1, 2, 8 * height, 8 * width)

    return _problem(
        "convex upsampling",
        (torch.randn(1, 2, 55, 128), torch.randn(1, 576, 55, 128)),
        footprint,
        lambda flow, mask, _: reassemble(flow, mask, 3, 1, 8, normalise=True),
        unfold,
        2,
        64 * 55 * 128,
        dtype,
        device,
    )


def neighborhood_attention(dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem of NAT-Tiny's first stage: two heads of 32 channels, windows of 7 x 7."""
    footprint = Footprint.parse(7, padding_mode="clamp", allowed=ALL_PADDING_MODES)

    def ours(query: Tensor, key_value: Tensor, _: Footprint) -> Tensor:
        key, value = key_value
        return na2d_av(na2d_qk(query, key, 7).softmax(-1), value, 7)

    def unfold(query: Tensor, key_value: Tensor, _: Footprint) -> Tensor:
        key, value = (footprint.unfold(item[0].permute(0, 3, 1, 2)) for item in key_value)  # (heads, D, taps, pixels)
        logits = (query[0].permute(0, 3, 1, 2).flatten(2).unsqueeze(2) * key).sum(1, keepdim=True)
        output = (logits.softmax(2) * value).sum(2)
        return output.transpose(1, 2).reshape_as(query)

    maps = torch.randn(3, 1, 2, 56, 56, 32)
    return _problem(
        "neighborhood attention", (maps[0], maps[1:]), footprint, ours, unfold, 2 * 64, 56 * 56, dtype, device
    )


def outlook_attention(dtype: torch.dtype, device: torch.device) -> Problem:
    """Make a problem of VOLO-D1: six heads of 32 channels, windows of 3 x 3 at every second pixel."""
    layer = OutlookAttention(192, 6, stride=2).to(device)

    def unfold(value: Tensor, logits: Tensor, _: Footprint) -> Tensor:
        near = F.unfold(value, 3, padding=1, stride=2).view(1, 6, 32, 9, 196).permute(0, 1, 4, 3, 2)
        attention = (layer.scale * logits.view(1, 196, 6, 9, 9)).permute(0, 2, 1, 3, 4).softmax(-1)
        attended = (attention @ near).permute(0, 1, 4, 3, 2).reshape(1, 192 * 9, 196)
        return F.fold(attended, (28, 28), 3, padding=1, stride=2)

    return _problem(
        "outlook attention",
        (torch.randn(1, 192, 28, 28), torch.randn(1, 14, 14, 486)),
        Footprint.parse(5, padding_mode="zeros"),
        lambda value, logits, _: layer.attend(value, logits),
        unfold,
        192,
        28 * 28,
        dtype,
        device,
    )


LAYERS: dict[str, Callable[[torch.dtype, torch.device], Problem]] = {
    "involution": involution,
    "carafe": carafe,
    "convex_upsampling": convex_upsampling,
    "neighborhood_attention": neighborhood_attention,
    "outlook_attention": outlook_attention,
}


def _problem(
    name: str,
    operands: tuple[Tensor, Tensor],
    footprint: Footprint,
    ours: Operator,
    unfold: Operator,
    channels: int,
    pixels: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Problem:
    pairs = channels * footprint.taps * pixels
    first, second = (operand.to(device, dtype) for operand in operands)
    return Problem(
        name,
        f"{' x '.join(map(str, first.shape))}, kernel {footprint.kernel_size[0]}",
        (first, second),
        footprint,
        {OURS: ours, UNFOLD: unfold},
        flops=2 * pairs,
        backward_reads_operands=True,
        unfolded_bytes=pairs * dtype.itemsize,
    )


def _unfold_multiply_sum(value: Tensor, weight: Tensor, footprint: Footprint, share: int) -> Tensor:
    near = footprint.unfold(value).unflatten(1, (-1, share))
    return (near * weight.unsqueeze(2)).sum(3)
