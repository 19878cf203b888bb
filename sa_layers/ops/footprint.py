"""The footprint R(i): the pixels j that a pixel i attends to, and what they are beyond the border.

A footprint is a grid of ``kernel_size`` taps, ``dilation`` pixels apart, centred on every ``stride``-th pixel. Taps are
numbered row by row. Padding is always ``dilation * (kernel_size - 1) / 2``, so a map of ``size`` pixels has
``ceil(size / stride)`` footprints per axis. Under 'clamp' nothing is padded: a footprint that would reach over the
border is moved inwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .integers import integer, integers, is_integer
from .torch_internals import is_exporting

PADDING_MODES = ("reflect", "zeros")
ALL_PADDING_MODES = (*PADDING_MODES, "clamp")  # of aggregation, softmax_aggregation and pairwise_relation
# As in csrc/checks.h: within these limits no index and no size of a kernel overflows.
MAX_SIZE = 2**16 - 1  # of kernel_size, stride and dilation, along each axis
MAX_TAPS = 2**20
MAX_REACH = 2**20  # pixels from the first to the last tap, along each axis
IntOrPair = int | tuple[int, int]


class Footprint(NamedTuple):
    """A validated footprint, made by :meth:`parse`."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding_mode: str

    @classmethod
    def parse(
        cls,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        dilation: IntOrPair = 1,
        padding_mode: str = "reflect",
        *,
        allowed: tuple[str, ...] = PADDING_MODES,
    ) -> Footprint:
        """Make a footprint from integers or (height, width) pairs, and check them.

        Args:
            kernel_size: Taps per axis; odd.
            stride: Pixels between the centres of neighbouring footprints.
            dilation: Pixels between neighbouring taps.
            padding_mode: Values beyond the border: 'reflect' reflects them at the border, repeatedly if the map is
                small, as :func:`numpy.pad` does (a map of one pixel repeats it); 'zeros' reads 0; 'clamp' moves the
                footprint inwards, see :meth:`sources`.
            allowed: The padding modes that are allowed. Defaults to 'reflect' and 'zeros'.

        Raises:
            TypeError: A size is neither an integer nor a pair of integers.
            ValueError: A size is not positive or above 65535, ``kernel_size`` is even, the footprint has more than
                2**20 taps or spans more than 2**20 pixels of an axis, or ``padding_mode`` is not allowed.

        Example:
            >>> Footprint.parse(7, dilation=(1, 2)).padding
            (3, 6)
        """
        footprint = cls(
            pair(kernel_size, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation"), padding_mode
        )
        if footprint.kernel_size[0] % 2 == 0 or footprint.kernel_size[1] % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that there is a centre tap, got {kernel_size}")
        for name, sizes in zip(("kernel_size", "stride", "dilation"), footprint[:3], strict=True):
            if max(sizes) > MAX_SIZE:
                raise ValueError(f"{name} must be at most {MAX_SIZE}, got {sizes}")
        if footprint.taps > MAX_TAPS:
            raise ValueError(f"kernel_size must have at most {MAX_TAPS} taps, got {kernel_size}, {footprint.taps} taps")
        if 2 * max(footprint.padding) > MAX_REACH:
            raise ValueError(
                f"dilation * (kernel_size - 1) must be at most {MAX_REACH} pixels, got kernel_size {kernel_size} and "
                f"dilation {dilation}"
            )
        if padding_mode not in allowed:
            raise ValueError(f"padding_mode must be one of {', '.join(allowed)}, got {padding_mode!r}")
        return footprint

    def check_size(self, height: int, width: int) -> None:
        """Raise an error if a map is too small to move footprints inwards; other padding modes allow any size."""
        if self.padding_mode != "clamp":
            return
        rows, columns = (taps * step for taps, step in zip(self.kernel_size, self.dilation, strict=True))
        if height < rows or width < columns:
            raise ValueError(
                f"padding_mode 'clamp' needs a map of at least kernel_size * dilation, ({rows}, {columns}) pixels, "
                f"got ({height}, {width})"
            )

    @property
    def taps(self) -> int:
        """The number of pixels in a footprint, K*K."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def padding(self) -> tuple[int, int]:
        """The padding of the map in rows (above and below) and columns (left and right)."""
        (kernel_height, kernel_width), (dilation_height, dilation_width) = self.kernel_size, self.dilation
        return dilation_height * (kernel_height - 1) // 2, dilation_width * (kernel_width - 1) // 2

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The number of footprints along each axis of a ``height`` x ``width`` map."""
        return output_size(height, width, self.stride)

    def centre(self, features: Tensor) -> Tensor:
        """The pixels i at the centres of the footprints: (N, C, H, W) -> (N, C, Ho, Wo)."""
        return features[..., :: self.stride[0], :: self.stride[1]]

    def pad(self, features: Tensor) -> Tensor:
        """Pad a map: (..., H, W) -> (..., H + 2 * padding, W + 2 * padding)."""
        rows, columns = self.padding
        if self.padding_mode == "clamp":
            return features
        if self.padding_mode == "zeros":
            return F.pad(features, (columns, columns, rows, rows))
        height, width = features.shape[-2:]
        if rows:
            features = features.index_select(-2, bounce(height, rows, features.device))
        if columns:
            features = features.index_select(-1, bounce(width, columns, features.device))
        return features

    def sources(self, axis: int, tap: Tensor | int, output: Tensor, size: int) -> Tensor:
        """The positions in the padded map, along one axis, that a tap of output pixels reads.

        Under 'clamp' the windows are those of NATTEN 0.17: every ``dilation``-th pixel belongs to an axis of its own,
        along which a window begins ``kernel_size // 2`` pixels before the output pixel or, at the border, as near to
        that as it can while all its taps lie on the map.

        Args:
            axis: 0 for rows, 1 for columns.
            tap: Indices of taps along the axis.
            output: Indices of output pixels along the axis, of the same shape.
            size: The number of pixels of the map along the axis.

        Example:
            >>> footprint = Footprint.parse(3, padding_mode="clamp", allowed=("clamp",))
            >>> footprint.sources(0, 0, torch.arange(5), 5)
            tensor([0, 0, 1, 2, 2])
        """
        kernel_size, stride, dilation = (sizes[axis] for sizes in self[:3])
        centre = output * stride
        if self.padding_mode != "clamp":
            return tap * dilation + centre
        phase = centre % dilation
        last = torch.div(size - phase + (dilation - 1), dilation, rounding_mode="floor") - kernel_size
        first = torch.div(centre, dilation, rounding_mode="floor") - kernel_size // 2
        return phase + dilation * (torch.minimum(first.clamp(min=0), last) + tap)

    def neighbours(self, features: Tensor) -> Iterator[Tensor]:
        """Yield the pixels j of each tap, (..., Ho, Wo): views of the padded (..., H, W) map, or copies for 'clamp'."""
        if self.padding_mode == "clamp":
            yield from self._clamped_neighbours(features)
            return
        out_height, out_width = self.output_size(features.shape[-2], features.shape[-1])
        padded = self.pad(features)
        for row in range(self.kernel_size[0]):
            for column in range(self.kernel_size[1]):
                top, left = row * self.dilation[0], column * self.dilation[1]
                bottom = top + (out_height - 1) * self.stride[0] + 1
                right = left + (out_width - 1) * self.stride[1] + 1
                yield padded[..., top : bottom : self.stride[0], left : right : self.stride[1]]

    def _clamped_neighbours(self, features: Tensor) -> Iterator[Tensor]:
        height, width = features.shape[-2:]
        out_height, out_width = self.output_size(height, width)
        rows, columns = (torch.arange(length, device=features.device) for length in (out_height, out_width))
        for row in range(self.kernel_size[0]):
            under_row = features.index_select(-2, self.sources(0, row, rows, height))
            for column in range(self.kernel_size[1]):
                yield under_row.index_select(-1, self.sources(1, column, columns, width))

    def unfold(self, features: Tensor) -> Tensor:
        """Copy the pixels of all footprints: (N, C, H, W) -> (N, C, K*K, Ho*Wo)."""
        if self.padding_mode == "clamp" or (torch.compiler.is_compiling() and not is_exporting()):
            return self._gather(features)
        columns = F.unfold(self.pad(features), self.kernel_size, dilation=self.dilation, stride=self.stride)
        return columns.unflatten(1, (features.shape[1], self.taps))

    def _gather(self, features: Tensor) -> Tensor:
        """Compute :meth:`unfold` for torch.compile and 'clamp', one axis after the other.

        Inductor cannot compile a backward pass that needs a view with symbolic strides ("cannot determine truth value
        of Relational"). From F.unfold it keeps such views of indices; the indices here have one dimension.
        """
        size = self.output_size(features.shape[-2], features.shape[-1])
        padded = self.pad(features)
        for axis in (0, 1):
            tap_and_pixel = torch.arange(self.kernel_size[axis] * size[axis], device=features.device)
            tap, pixel = tap_and_pixel // size[axis], tap_and_pixel % size[axis]
            padded = padded.index_select(axis - 2, self.sources(axis, tap, pixel, features.shape[axis - 2]))
        taps = padded.unflatten(-1, (self.kernel_size[1], size[1])).unflatten(2, (self.kernel_size[0], size[0]))
        return taps.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def output_size(height: int, width: int, stride: Sequence[int]) -> tuple[int, int]:
    """The number of footprints, ``stride`` pixels apart, along each axis of a map."""
    return (height - 1) // stride[0] + 1, (width - 1) // stride[1] + 1


def bounce(size: int, padding: int, device: torch.device) -> Tensor:
    """The source index of every position of an axis padded by reflection: (size + 2 * padding,).

    Example:
        >>> bounce(3, 4, torch.device("cpu")).tolist()
        [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    index = torch.arange(-padding, size + padding, device=device)
    period: int | Tensor = at_least_one(2 * (size - 1))
    if not isinstance(period, Tensor):  # a tensor, since ONNX cannot export a remainder by a symbolic number
        period = index.new_full((), period)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def at_least_one(size: int) -> int:
    """Return ``max(size, 1)``, also for the tensor that a size is while torch.jit.trace records it."""
    return size.clamp(min=1) if isinstance(size, Tensor) else max(size, 1)


def pair(value: IntOrPair, name: str) -> tuple[int, int]:
    """Return an integer or a pair as (height, width), both positive."""
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, (tuple, list)) else ()
    if len(values) != 2 or not all(isinstance(item, int) and not isinstance(item, bool) for item in values):
        values = (integer(value, name),) * 2 if is_integer(value) else integers(value) or ()
        if len(values) != 2:
            raise TypeError(f"{name} must be an integer or a pair of integers, got {value!r}")
    if min(values) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return values
