"""The bands of a footprint: how output pixels share the pixels that they read."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...ops import Footprint

SEGMENT = 7  # output pixels: it divides the maps of images of 224 pixels, and its multiples are not faster


class Band(NamedTuple):
    r"""Segments of a row of output pixels, and the window of input pixels that each of them reads.

    The weights of a segment are a matrix with a row for each output pixel and a column for each pixel of the window.
    The taps of the next output pixel are ``shift`` columns further on, so the matrix is a band, and the aggregation is
    a product of this band with the window. For this, taps and windows are numbered column by column: tap
    ``x * kernel_height + y``.

    With a dilation d and a stride s along the row, only output pixels whose distance is a multiple of ``d / gcd(d, s)``
    read the same columns. These form a class, and a segment consists of pixels of one class.

    Args:
        footprint: R.
        segment: Output pixels of a segment.
    """

    footprint: Footprint
    segment: int

    @classmethod
    def of(cls, footprint: Footprint) -> Band:
        """The band of a footprint: segments of one pixel if the taps of neighbouring pixels do not overlap.

        Example:
            >>> band = Band.of(Footprint.parse(3, stride=2, dilation=2))
            >>> band.classes, band.step, band.columns, band.window, band.shift
            (1, 1, 9, 27, 3)
        """
        single = cls(footprint, 1)
        return single if single.step >= footprint.kernel_size[1] else cls(footprint, SEGMENT)

    @property
    def classes(self) -> int:
        """The number of classes of output pixels in a row."""
        return self.footprint.dilation[1] // self._common

    @property
    def step(self) -> int:
        """The columns of the window from an output pixel to the next one of its class."""
        return self.footprint.stride[1] // self._common

    @property
    def columns(self) -> int:
        """The columns of a window, which are ``dilation`` pixels apart."""
        return (self.segment - 1) * self.step + self.footprint.kernel_size[1]

    @property
    def window(self) -> int:
        """The pixels of a window."""
        return self.columns * self.footprint.kernel_size[0]

    @property
    def shift(self) -> int:
        """The pixels of the window from the first tap of an output pixel to that of the next one."""
        return self.step * self.footprint.kernel_size[0]

    @property
    def _common(self) -> int:
        return math.gcd(self.footprint.stride[1], self.footprint.dilation[1])


def column_major(kernel_size: tuple[int, int]) -> list[int]:
    """The taps, which are numbered row by row elsewhere, in the order of a band.

    Example:
        >>> column_major((2, 3))
        [0, 3, 1, 4, 2, 5]
    """
    height, width = kernel_size
    return [row * width + column for column in range(width) for row in range(height)]
