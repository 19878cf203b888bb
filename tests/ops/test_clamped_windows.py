"""The windows of padding mode 'clamp' are NATTEN's: of all windows on the map, the one whose centre is nearest."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sa_layers.ops import Footprint, pairwise_relation
from sa_layers.reference.footprint import make_footprint


def windows(size: int, kernel_size: int, dilation: int, stride: int = 1) -> NDArray[np.int64]:
    """(outputs, taps): the pixels of every window along an axis, by a search over all windows on the map."""
    chosen = []
    for output in range(0, size, stride):
        same_phase = range(output % dilation, size, dilation)
        runs = [same_phase[first : first + kernel_size] for first in range(len(same_phase) - kernel_size + 1)]
        chosen.append(min(runs, key=lambda run: abs(run[kernel_size // 2] - output)))
    return np.array(chosen)


def pixels(size: tuple[int, int], kernel_size: int, dilation: int, stride: int = 1) -> NDArray[np.int64]:
    """(taps, outputs): the pixel under every tap of every window of a map."""
    rows, columns = (windows(side, kernel_size, dilation, stride) for side in size)
    index = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    return index.reshape(-1, kernel_size * kernel_size).T


@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11, 13])
@pytest.mark.backends("native", "torch")
def test_every_window(place: torch.device, kernel_size: int, dilation: int) -> None:
    """On maps from the kernel's size up: the key of the pixel with index j is j."""
    smallest = kernel_size * dilation
    for more in (0, 0), (0, 1), (1, dilation), (dilation + 1, 2), (3, 9):
        size = (smallest + more[0], smallest + more[1])
        key = torch.arange(size[0] * size[1], dtype=torch.float64, device=place).view(1, 1, *size)
        read = pairwise_relation(
            torch.zeros_like(key), key, kernel_size, "summation", dilation=dilation, padding_mode="clamp"
        )
        assert np.array_equal(read[0, 0].cpu().numpy(), pixels(size, kernel_size, dilation))


@pytest.mark.parametrize(("kernel_size", "dilation", "stride"), list(product([3, 7], [1, 3], [1, 2, 5])))
def test_of_the_reference(kernel_size: int, dilation: int, stride: int) -> None:
    size = (kernel_size * dilation + 1, kernel_size * dilation + 4)
    footprint = make_footprint(size, kernel_size, stride, dilation, "clamp")
    assert np.array_equal(footprint.neighbours.T, pixels(size, kernel_size, dilation, stride))
    assert np.array_equal(footprint.centres, np.arange(size[0] * size[1]).reshape(size)[::stride, ::stride].ravel())


def test_unfold_copies_the_windows() -> None:
    size, footprint = (7, 9), Footprint.parse(3, 2, 2, "clamp", allowed=("clamp",))
    read = footprint.unfold(torch.arange(63.0).view(1, 1, *size))
    assert np.array_equal(read[0, 0].numpy(), pixels(size, 3, 2, 2))
