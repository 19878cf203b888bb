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
    (height, width), (rows, columns) = footprint.output_size(*key.shape[1:3]), _counts(footprint, key)
    shifts = torch.stack([_any_pixel(query), _any_pixel(key)])
    if _is_native(key):
        sums = _native_row_sums(pixels_apart(query), pixels_apart(key), shifts, *columns)
    else:
        sums = tuple(map(_row_sums, (query, key), shifts, columns))
    count = key.shape[0] * height * width
    return torch.cat(
        [_moments(*item, key.shape[0], count) for item in zip(sums, shifts, rows, columns, strict=True)], 1
    )


def _any_pixel(pixels: Tensor) -> Tensor:
    """A pixel (R,), to be subtracted before pixels are squared; zeros if there is none."""
    return pixels.flatten(0, 2)[:1].double().sum(0)


def _row_sums(pixels: Tensor, shift: Tensor, columns: Tensor) -> Tensor:
    """Sums over images and columns of ``pixels - shift`` and of its square, for every row and tap: (2, H, J, R)."""
    centred = pixels.double() - shift
    return torch.einsum("jw,shwr->shjr", columns, torch.stack([centred.sum(0), (centred * centred).sum(0)]))


def _moments(row_sums: Tensor, shift: Tensor, rows: Tensor, columns: Tensor, batch: int, count: int) -> Tensor:
    """Mean and variance of ``count`` features for every channel and tap: (2, R * taps)."""
    sums = torch.einsum("ih,shjr->srij", rows, row_sums).flatten(2)  # (2, R, taps)
    padded = count - batch * torch.outer(rows.sum(1), columns.sum(1)).flatten()  # zeros beyond the border
    first = (sums[0] - padded * shift[:, None]) / count
    second = (sums[1] + padded * (shift * shift)[:, None]) / count
    return torch.stack([(first + shift[:, None]).flatten(), (second - first * first).clamp(min=0).flatten()])


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
    channels, (rows, columns) = key.shape[3], _counts(footprint, key)
    of_features = torch.cat([mean[None], factors]).split([channels, len(mean) - channels], 1)
    (query_centre, of_query), (key_centre, of_key) = map(_coefficients, of_features, rows, columns, (channels,) * 2)
    if _is_native(key):
        maps, centres = (pixels_apart(query), pixels_apart(key)), torch.stack([query_centre, key_centre])
        _native_subtract_norm(*maps, centres, *columns, of_query, of_key, grad_query, grad_key)
    else:
        _subtract(query, query_centre, of_query, columns[0], grad_query)
        _subtract(key, key_centre, of_key, columns[1], grad_key)


def _coefficients(of_features: Tensor, rows: Tensor, columns: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """What a map's pixels get by rows and taps, from mean, constant and slope of every channel and tap, (3, R * taps).

    A pixel gets constant + slope * (pixel - centre).

    Returns:
        The centre, (R,), and the coefficients, (2, H, J, R), of which a column takes those of the taps that read it.
    """
    means, constants, slopes = of_features.unflatten(1, (channels, -1))
    centre = means.mean(1)
    coefficients = torch.stack([constants + slopes * (centre[:, None] - means), slopes])
    coefficients = coefficients.unflatten(2, (len(rows), len(columns)))
    return centre, torch.einsum("srij,ih->shjr", coefficients, rows).contiguous()


def _subtract(pixels: Tensor, centre: Tensor, coefficients: Tensor, columns: Tensor, gradient: Tensor) -> None:
    dtype = torch.promote_types(pixels.dtype, torch.float32)
    constant, slope = torch.einsum("shjr,jw->shwr", coefficients, columns).to(dtype)
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


def _counts(footprint: Footprint, key: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """How often each tap reads each row and column of the query, whose only tap is the centre, and of the key."""
    height, width = key.shape[1:3]
    kernel_size, stride, dilation, padding_mode = footprint
    rows = (1, stride[0], 1, "zeros"), (kernel_size[0], stride[0], dilation[0], padding_mode)
    columns = (1, stride[1], 1, "zeros"), (kernel_size[1], stride[1], dilation[1], padding_mode)
    return (
        tuple(_landings(height, *axis).to(key.device) for axis in rows),
        tuple(_landings(width, *axis).to(key.device) for axis in columns),
    )  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def _landings(size: int, taps: int, stride: int, dilation: int, padding_mode: str) -> Tensor:
    """How often each tap reads each pixel of an axis: (taps, size), float64."""
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


def _fake_row_sums(key: Tensor, query_columns: Tensor, key_columns: Tensor) -> tuple[Tensor, ...]:
    _, height, _, channels = key.shape
    return tuple(item.new_empty(2, height, len(item), channels) for item in (query_columns, key_columns))


_native_row_sums = native_operator("patchwise_row_sums", _fake_row_sums)
_native_subtract_norm = native_operator("patchwise_subtract_norm", lambda: None)
_native_devices = devices_of("patchwise_row_sums")
