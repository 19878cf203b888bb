"""Upsampling by weights that are computed for every pixel of the larger map: the core of CARAFE and RAFT."""

from __future__ import annotations

from torch import Tensor

from ..ops import aggregation, softmax_aggregation
from ..ops.checks import autocast, check_alike, check_map, check_shape


def reassemble(
    features: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale_factor: int, *, normalise: bool
) -> Tensor:
    r"""Upsample a map: each of the r x r pixels that a pixel becomes is a weighted sum of the pixel's neighbourhood.

    .. math:: y_{c,\, r i + s} = \sum_{j \in R(i)} w_{\lfloor c\, G / C \rfloor,\, s,\, j - i} \; x_{c,j}

    Args:
        features: x, (N, C, H, W).
        kernels: The weights w, (N, G * K * K * r * r, H, W), in the order of the dimensions G, K, K, r, r, so that
            :func:`torch.nn.functional.pixel_shuffle` brings them to the larger map.
        kernel_size: K, odd. Beyond the border are zeros.
        groups: G, a divisor of C.
        scale_factor: r.
        normalise: Whether the weights are the softmax of ``kernels`` over the K x K taps.

    Returns:
        (N, C, r * H, r * W), contiguous.

    Raises:
        TypeError: A dtype is not allowed, or the two differ outside autocast.
        ValueError: A shape does not fit; the message names it.

    Example:
        >>> import torch
        >>> features = torch.arange(4.0).view(1, 1, 2, 2)
        >>> nearest = torch.zeros(1, 9, 4, 2, 2)
        >>> nearest[:, 4] = 1  # the middle tap, for all four pixels
        >>> reassemble(features, nearest.flatten(1, 2), 3, 1, 2, normalise=False)[0, 0]
        tensor([[0., 0., 1., 1.],
                [0., 0., 1., 1.],
                [2., 2., 3., 3.],
                [2., 2., 3., 3.]])
    """
    check_map(features, "features")
    taps, pixels = kernel_size**2, scale_factor**2
    batch, channels, height, width = features.shape
    check_shape(kernels, "kernels", (batch, groups * taps * pixels, height, width), f"features {tuple(features.shape)}")
    if channels % groups:
        raise ValueError(f"features must have a number of channels that groups ({groups}) divides, got {channels}")
    features, kernels = autocast(features, kernels)
    check_alike(features, "features", kernels, "kernels")
    # the features once for each of the r x r pixels, which have weights of their own
    weight = kernels.unflatten(1, (groups, taps, pixels)).permute(0, 3, 1, 2, 4, 5).flatten(4).flatten(1, 2)
    value = features.unsqueeze(1).expand(-1, pixels, -1, -1, -1).flatten(1, 2)
    operator = softmax_aggregation if normalise else aggregation
    output = operator(value, weight, kernel_size, padding_mode="zeros", groups="contiguous")
    output = output.unflatten(1, (scale_factor, scale_factor, channels)).permute(0, 3, 4, 1, 5, 2)
    return output.flatten(4).flatten(2, 3)


def reassembly_flops(features: tuple[int, ...], kernel_size: int, scale_factor: int) -> int:
    """FLOPs of :func:`reassemble` for features (N, C, H, W): a multiply-add for each channel, tap and output pixel.

    >>> reassembly_flops((1, 256, 50, 84), 5, 2)
    215040000
    """
    batch, channels, height, width = features
    return 2 * batch * channels * height * width * (kernel_size * scale_factor) ** 2
