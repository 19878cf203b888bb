"""Maps of features between (N, C, H, W), which modules take, and (N, H, W, C), which the fused path computes."""

from __future__ import annotations

from torch import Tensor


def to_channels_last(features: Tensor) -> Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C), contiguous; a view of a channels-last map."""
    return features.permute(0, 2, 3, 1).contiguous()


def to_channels_first(pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W), a view."""
    return pixels.permute(0, 3, 1, 2)


def like_input(features: Tensor, pixels: Tensor) -> Tensor:
    """(N, H, W, C) -> (N, C, H, W) in the memory format of the module's input, which its caller may rely on."""
    result = to_channels_first(pixels)
    return result.contiguous() if features.is_contiguous() else result
