"""Maps of features between (N, C, H, W), which modules take, and (N, H, W, C), which the fused path computes."""

from __future__ import annotations

import torch
from torch import Tensor


def to_channels_last(features: Tensor) -> Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C), contiguous; a view of a channels-last map."""
    return features.permute(0, 2, 3, 1).contiguous()


def to_channels_first(pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return pixels.permute(0, 3, 1, 2)


def in_format_of(features: Tensor, result: Tensor) -> Tensor:
    """Return a map in the memory format of another as a convolution does: channels last, otherwise contiguous.

    Args:
        features: (N, C, H, W), of any strides.
        result: (N, C', H', W'), of any strides.

    Example:
        >>> in_format_of(torch.zeros(1, 1, 1, 1), torch.zeros(1, 3, 3, 2).permute(0, 3, 1, 2)).stride()
        (18, 9, 3, 1)
    """
    return in_format(result, is_channels_last(features))


def in_format(result: Tensor, channels_last: bool) -> Tensor:
    """Return a map as channels last or contiguous.

    Copies it only if its format differs. The strides of dimensions of size 1, which decide the format of a map with one
    channel or one pixel, are those of a new tensor.
    """
    if not channels_last:
        kept = result.is_contiguous() and not is_channels_last(result)
        return result if kept else result.clone(memory_format=torch.contiguous_format)
    if is_channels_last(result) and result.is_contiguous(memory_format=torch.channels_last):
        return result
    # by permutation, since torch.vmap does not support memory formats
    return to_channels_first(result.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format))


def is_channels_last(features: Tensor) -> bool:
    """Whether torch's operators take strides for channels last, and contiguous ones of ambiguous maps for contiguous.

    Example:
        >>> one_pixel = torch.zeros(2, 3, 1, 1)
        >>> is_channels_last(one_pixel), is_channels_last(one_pixel.to(memory_format=torch.channels_last))
        (False, True)
    """
    channels, height, width = features.shape[1:]
    batch_stride, channel_stride, row_stride, column_stride = features.stride()
    if channel_stride == 0:
        return False
    reach = channel_stride
    for size, stride in ((channels, column_stride), (width, row_stride), (height, batch_stride)):
        reach *= size
        if stride < reach:
            return False
        reach = stride
    return batch_stride > channel_stride
