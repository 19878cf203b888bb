"""Windows that overlap: the weight of a pixel for another one, added up over all windows that contain both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Windows(NamedTuple):
    """The windows of a map: K x K pixels around every ``stride``-th pixel.

    Example:
        >>> Windows(3, 2, (7, 6)).grid
        (4, 3)
    """

    kernel_size: int
    stride: int
    size: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns of windows."""
        return tuple(-(-side // self.stride) for side in self.size)

    @property
    def margin(self) -> int:
        """Pixels beyond the border that the windows contain."""
        return (self.kernel_size - 1) // 2

    def pixels(self, padded: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield every position in a window, and the weights of the pixels there.

        Args:
            padded: The weights of pixels, (N, heads, 2K - 1, 2K - 1, H + 2 * margin, W + 2 * margin).

        Yields:
            The index of the position, and a view of the weights for the pixels of the window, (N, heads, K, K, h, w).
        """
        kernel_size = self.kernel_size
        rows, columns = (self.stride * (number - 1) + 1 for number in self.grid)
        for row in range(kernel_size):
            for column in range(kernel_size):
                down, right = kernel_size - 1 - row, kernel_size - 1 - column
                view = padded[:, :, down : down + kernel_size, right : right + kernel_size]
                view = view[..., row : row + rows : self.stride, column : column + columns : self.stride]
                yield row * kernel_size + column, view


def add_windows(attention: Tensor, windows: Windows) -> Tensor:
    """Add the weights of all windows that contain two pixels.

    Args:
        attention: The weights of a pixel of a window for another one, (N, heads, K * K, K * K, h, w) for h x w windows.
        windows: The windows.

    Returns:
        The weights of every pixel for those around it, row by row: (N, heads, 2K - 1, 2K - 1, H, W).

    Example:
        >>> ones = torch.ones(1, 1, 9, 9, 4, 4)
        >>> add_windows(ones, Windows(3, 1, (4, 4)))[0, 0, 2, 2]  # the windows that contain a pixel
        tensor([[4., 6., 6., 4.],
                [6., 9., 9., 6.],
                [6., 9., 9., 6.],
                [4., 6., 6., 4.]])
    """
    # torch.compile traces no Function with a jvp
    return _add(attention, windows) if torch.compiler.is_compiling() else _Add.apply(attention, windows, False)


def _add(attention: Tensor, windows: Windows) -> Tensor:
    kernel_size, reach = windows.kernel_size, 2 * windows.kernel_size - 1
    rows, columns = (side + 2 * windows.margin for side in windows.size)
    padded = attention.new_zeros(*attention.shape[:2], reach, reach, rows, columns)
    attention = attention.unflatten(3, (kernel_size, kernel_size))
    for position, pixels in windows.pixels(padded):
        pixels += attention[:, :, position]
    rows, columns = windows.size
    return padded.narrow(4, windows.margin, rows).narrow(5, windows.margin, columns).contiguous()


def _read(weight: Tensor, windows: Windows) -> Tensor:
    """The transpose: the weights of the pixels of every window."""
    kernel_size = windows.kernel_size
    padded = F.pad(weight, (windows.margin,) * 4)
    attention = weight.new_empty(*weight.shape[:2], kernel_size**2, kernel_size, kernel_size, *windows.grid)
    for position, pixels in windows.pixels(padded):
        attention[:, :, position] = pixels
    return attention.flatten(3, 4)


class _Add(torch.autograd.Function):
    """:func:`_add` or its transpose: each is the derivative of the other, since both are linear.

    autograd alone would keep a node for every position, and copy the weights of all pixels for each of them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, windows: Windows, transposed: bool) -> Tensor:
        return (_read if transposed else _add)(tensor, windows)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Windows, bool], output: Tensor) -> None:
        _, ctx.windows, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Add.apply(gradients[0], ctx.windows, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor) -> Tensor:
        return _Add.apply(changes[0], ctx.windows, ctx.transposed)
