"""The first norm of patchwise concatenation in training, in closed form: nothing is unfolded.

Tap (i, j) reads the pixel (h, w) of the key for ``rows[i, h] * columns[j, w]`` output pixels. So a sum of a tap's
features over all output pixels is a sum over the pixels of the key with these weights, and the gradient of a pixel is
that of all taps with the same weights. The query is a map with one tap, of which every centre is read once.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .backend import choose, devices_of
from .footprint import Footprint, bounce
from .native import native_operator


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
    out_height, out_width = footprint.output_size(height, width)
    count = batch * out_height * out_width
    moments = [
        _moments(footprint.centre(query.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), *_ones(out_height, out_width), count),
        _moments(key, *_landings(footprint, height, width), count),
    ]
    return torch.cat(moments, 1)


def _moments(pixels: Tensor, rows: Tensor, columns: Tensor, count: int) -> Tensor:
    """Mean and variance of ``count`` features for every channel and tap: (2, R * taps)."""
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    shift = pixels.flatten(0, 2)[:1].double().sum(0)  # any pixel: the difference of squares is taken in float64
    sums = torch.einsum("ih,shjr->srij", rows, _row_sums(pixels, shift, columns)).flatten(2)  # (2, R, taps)
    padded = count - pixels.shape[0] * torch.outer(rows.sum(1), columns.sum(1)).flatten()  # zeros beyond the border
    first = (sums[0] - padded * shift[:, None]) / count
    second = (sums[1] + padded * (shift * shift)[:, None]) / count
    return torch.stack([(first + shift[:, None]).flatten(), (second - first * first).clamp(min=0).flatten()])


def _row_sums(pixels: Tensor, shift: Tensor, columns: Tensor) -> Tensor:
    """Sums over images and columns of ``pixels - shift`` and of its square, for every row and tap: (2, H, J, R)."""
    if _is_native(pixels):
        return _native_row_sums(pixels_apart(pixels), shift, columns)
    centred = pixels.double() - shift
    sums = torch.stack([centred.sum(0), (centred * centred).sum(0)])
    return torch.einsum("jw,shwr->shjr", columns, sums)


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
    channels, (height, width) = key.shape[3], key.shape[1:3]
    of_query, of_key = torch.cat([mean[None], factors]).split([channels, len(mean) - channels], 1)
    rows, columns = _centres(footprint, height, width)
    _subtract(query, of_query, rows, columns, grad_query)
    _subtract(key, of_key, *_landings(footprint, height, width), grad_key)


def _subtract(pixels: Tensor, of_taps: Tensor, rows: Tensor, columns: Tensor, gradient: Tensor) -> None:
    """Subtract from a map what its taps get, by (3, R * taps): mean, constant and slope of every channel and tap."""
    rows, columns = rows.to(pixels.device), columns.to(pixels.device)
    means, constants, slopes = of_taps.unflatten(1, (pixels.shape[3], -1))
    centre = means.mean(1)
    coefficients = torch.stack([constants + slopes * (centre[:, None] - means), slopes])
    coefficients = coefficients.unflatten(2, (len(rows), len(columns)))
    of_rows = torch.einsum("srij,ih->shjr", coefficients, rows).contiguous()
    if _is_native(pixels):
        _native_subtract_norm(pixels_apart(pixels), centre, of_rows, columns, gradient)
        return
    dtype = torch.promote_types(pixels.dtype, torch.float32)
    constant, slope = torch.einsum("shjr,jw->shwr", of_rows, columns).to(dtype)
    gradient.sub_(torch.addcmul(constant, pixels.to(dtype) - centre.to(dtype), slope))


def pixels_apart(pixels: Tensor) -> Tensor:
    """The map (N, H, W, C) itself if its pixels are equally far apart, with contiguous channels; otherwise a copy.

    Example:
        >>> wide = torch.zeros(2, 3, 4, 5)
        >>> pixels_apart(wide[..., 1:3]).stride(), pixels_apart(wide[:, ::2]).stride()
        ((60, 20, 5, 1), (40, 20, 5, 1))
    """
    _, height, width, channels = pixels.shape
    stride = pixels.stride(2)
    expected = (height * width * stride, width * stride, stride, 1)
    matches = all(
        size == 1 or given == wanted
        for size, given, wanted in zip(pixels.shape, pixels.stride(), expected, strict=True)
    )
    return pixels if matches and width > 1 and stride >= channels else pixels.contiguous()


def _landings(footprint: Footprint, height: int, width: int) -> tuple[Tensor, Tensor]:
    """How often each tap reads each pixel, along each axis: (Kh, H) and (Kw, W), float64."""
    return tuple(  # type: ignore[return-value]
        _landings_along(*axis, footprint.padding_mode)
        for axis in zip((height, width), footprint.kernel_size, footprint.stride, footprint.dilation, strict=True)
    )


def _centres(footprint: Footprint, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The same for the centres of footprints, as one tap."""
    return tuple(  # type: ignore[return-value]
        _landings_along(size, 1, stride, 1, "zeros")
        for size, stride in zip((height, width), footprint.stride, strict=True)
    )


def _ones(height: int, width: int) -> tuple[Tensor, Tensor]:
    return _landings_along(height, 1, 1, 1, "zeros"), _landings_along(width, 1, 1, 1, "zeros")


@functools.lru_cache(maxsize=256)
def _landings_along(size: int, taps: int, stride: int, dilation: int, padding_mode: str) -> Tensor:
    padding = dilation * (taps - 1) // 2
    positions = torch.arange(taps)[:, None] * dilation + torch.arange(0, size, stride)  # in the padded axis
    counts = torch.zeros(taps, size + 1, dtype=torch.float64)
    if padding_mode == "zeros":
        pixels = positions - padding
        pixels = torch.where((pixels >= 0) & (pixels < size), pixels, size)
    else:
        pixels = bounce(size, padding, torch.device("cpu"))[positions]
    counts.scatter_add_(1, pixels, torch.ones_like(pixels, dtype=torch.float64))
    return counts[:, :size].contiguous()


def _is_native(pixels: Tensor) -> bool:
    return pixels.device.type in _native_devices and choose(pixels.device) == "native"


def _fake_row_sums(pixels: Tensor, columns: Tensor) -> Tensor:
    return columns.new_empty(2, pixels.shape[1], len(columns), pixels.shape[3])


_native_row_sums = native_operator("patchwise_row_sums", _fake_row_sums)
_native_subtract_norm = native_operator("patchwise_subtract_norm", lambda: None)
_native_devices = devices_of("patchwise_row_sums")
