"""The first norm of patchwise concatenation in training, in closed form: nothing is unfolded.

Tap (i, j) reads the pixel (h, w) of the key for ``rows[i, h] * columns[j, w]`` output pixels. So a sum of a tap's
features over all output pixels is a sum over the pixels of the key with these weights, and the gradient of a pixel is
that of all taps with the same weights.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .footprint import Footprint, bounce


def concatenation_statistics(query: Tensor, key: Tensor, footprint: Footprint) -> Tensor:
    """Mean and biased variance of the features of 'concatenation': (2, F) float64.

    Args:
        query: φ, (N, H, W, R).
        key: ψ, as ``query``.
        footprint: R(i).

    Example:
        >>> pixels = torch.ones(1, 4, 4, 1)
        >>> concatenation_statistics(pixels, pixels, Footprint.parse((1, 3), 1, 1, "zeros"))[0]
        tensor([1.0000, 0.7500, 1.0000, 0.7500], dtype=torch.float64)
    """
    batch, height, width = key.shape[:3]
    centres = query[:, :: footprint.stride[0], :: footprint.stride[1]].double().flatten(0, 2)
    variance, mean = torch.var_mean(centres, dim=0, correction=0)
    pixels = key.double()
    centre = pixels.mean((0, 1, 2))  # so that the difference of squares below does not cancel
    pixels = pixels - centre
    rows, columns = _landings(footprint, height, width, key.device)
    sums = torch.stack([pixels.sum(0), (pixels * pixels).sum(0)])  # (2, H, W, R)
    of_rows = torch.einsum("ih,shwr->siwr", rows, sums)
    of_taps = torch.einsum("jw,siwr->srij", columns, of_rows).flatten(2)  # (2, R, taps)
    count = len(centres)
    padded = count - batch * torch.outer(rows.sum(1), columns.sum(1)).flatten()  # zeros beyond the border
    first = (of_taps[0] - padded * centre[:, None]) / count
    second = (of_taps[1] + padded * (centre * centre)[:, None]) / count
    means = torch.cat([mean, (first + centre[:, None]).flatten()])
    return torch.stack([means, torch.cat([variance, (second - first * first).flatten()]).clamp(min=0)])


def add_norm_gradients(
    query: Tensor,
    key: Tensor,
    footprint: Footprint,
    mean: Tensor,
    factors: Tensor,
    grad_query: Tensor,
    grad_key: Tensor,
) -> None:
    """Add -(factors[0] + factors[1] * (f - mean)), the gradient of every feature f of 'concatenation', to the maps'.

    Args:
        query: φ, (N, H, W, R).
        key: ψ, as ``query``.
        footprint: R(i).
        mean: (F,), float64.
        factors: (2, F), float64.
        grad_query: As ``query``.
        grad_key: As ``query``.

    Example:
        >>> grad_key, zeros = torch.zeros(1, 2, 2, 1), torch.zeros(2).double()
        >>> maps = (torch.ones(1, 2, 2, 1),) * 2
        >>> add_norm_gradients(*maps, Footprint.parse(1), zeros, torch.ones(2, 2).double(), maps[0].clone(), grad_key)
        >>> grad_key[0, 0, 0]
        tensor([-2.])
    """
    channels, dtype = key.shape[3], torch.promote_types(key.dtype, torch.float32)
    strides = footprint.stride
    centres, of_centres = (item[:, :: strides[0], :: strides[1]] for item in (query, grad_query))
    change = (centres.to(dtype) - mean[:channels].to(dtype)) * factors[1, :channels].to(dtype)
    of_centres.sub_(change + factors[0, :channels].to(dtype))
    # For the key, constant + slope * (pixel - centre), whose coefficients depend on how often each tap reads the pixel.
    means, constants, slopes = (item[channels:].view(channels, -1) for item in (mean, *factors))
    centre = means.mean(1)
    constants = constants + slopes * (centre[:, None] - means)
    coefficients = torch.stack([constants, slopes]).unflatten(2, footprint.kernel_size)
    rows, columns = _landings(footprint, key.shape[1], key.shape[2], key.device)
    of_rows = torch.einsum("srij,ih->sjhr", coefficients, rows)
    constant, slope = torch.einsum("sjhr,jw->shwr", of_rows, columns).to(dtype)
    grad_key.sub_(torch.addcmul(constant, key.to(dtype) - centre.to(dtype), slope))


def _landings(footprint: Footprint, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """How often each tap reads each pixel, along each axis: (Kh, H) and (Kw, W), float64."""
    return tuple(  # type: ignore[return-value]
        _landings_along(*axis, footprint.padding_mode, device)
        for axis in zip((height, width), footprint.kernel_size, footprint.stride, footprint.dilation, strict=True)
    )


@functools.lru_cache(maxsize=64)
def _landings_along(
    size: int, taps: int, stride: int, dilation: int, padding_mode: str, device: torch.device
) -> Tensor:
    padding = dilation * (taps - 1) // 2
    positions = torch.arange(taps)[:, None] * dilation + torch.arange(0, size, stride)  # in the padded axis
    counts = torch.zeros(taps, size + 1, dtype=torch.float64)
    if padding_mode == "zeros":
        pixels = positions - padding
        pixels = torch.where((pixels >= 0) & (pixels < size), pixels, size)
    else:
        pixels = bounce(size, padding, torch.device("cpu"))[positions]
    counts.scatter_add_(1, pixels, torch.ones_like(pixels, dtype=torch.float64))
    return counts[:, :size].to(device)
