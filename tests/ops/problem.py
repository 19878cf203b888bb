"""Operands to try an operator on: small maps, often smaller than the footprint, in every layout that torch can make."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from sa_layers.ops import ALL_PADDING_MODES, PADDING_MODES, Footprint

LAYOUTS = ("contiguous", "channels_last", "sliced", "expanded", "transposed")


class Problem(NamedTuple):
    """Sizes, and the footprint as keyword arguments; channels are ``weight_channels * share``."""

    batch: int
    weight_channels: int
    share: int
    size: tuple[int, int]
    arguments: dict[str, Any]
    seed: int = 0

    @property
    def footprint(self) -> Footprint:
        return Footprint.parse(**self.arguments, allowed=ALL_PADDING_MODES)

    def normal(self, *shape: int) -> Tensor:
        """float64 on the CPU, different numbers for different shapes."""
        generator = torch.Generator().manual_seed(self.seed + sum(shape))
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def map(self) -> Tensor:
        return self.normal(self.batch, self.weight_channels * self.share, *self.size)

    def with_padding_mode(self, padding_mode: str) -> Problem:
        """With a map that is large enough: under 'clamp', of the footprint's size at least."""
        problem = self._replace(arguments=self.arguments | {"padding_mode": padding_mode})
        if padding_mode != "clamp":
            return problem
        kernel_size, _, dilation, _ = self.footprint
        height, width = (
            max(side, taps * step) for side, taps, step in zip(self.size, kernel_size, dilation, strict=True)
        )
        return problem._replace(size=(height, width))

    def other_map(self) -> Tensor:
        return self._replace(seed=self.seed + 1).map()

    def weight(self) -> Tensor:
        height, width = self.footprint.output_size(*self.size)
        return self.normal(self.batch, self.weight_channels, self.footprint.taps, height * width)


def arguments(
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    padding_mode: str = "reflect",
) -> dict[str, Any]:
    return {"kernel_size": kernel_size, "stride": stride, "dilation": dilation, "padding_mode": padding_mode}


def problems(
    kernel_sizes: tuple[int, ...], padding_modes: tuple[str, ...] = PADDING_MODES
) -> st.SearchStrategy[Problem]:
    """Batches of none to three, channels of 1 to 72, maps of 1 to 400 pixels, footprints of every kind."""

    def pair(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
        return numbers | st.tuples(numbers, numbers)

    side, step = st.integers(1, 20), st.integers(1, 3)
    footprints = st.fixed_dictionaries(
        {
            "kernel_size": pair(st.sampled_from(kernel_sizes)),
            "stride": pair(step),
            "dilation": pair(step),
        }
    )
    drawn = st.builds(
        Problem,
        batch=st.integers(0, 3),
        weight_channels=st.integers(1, 9),
        share=st.integers(1, 8),
        size=st.tuples(side, side),
        arguments=footprints,
        seed=st.integers(0, 999),
    )
    return st.builds(Problem.with_padding_mode, drawn, st.sampled_from(padding_modes))


# Always tried: plain, strided and dilated by axis, smaller than the footprint, a single pixel, gaps, no image at all.
CORNERS = [
    Problem(2, 2, 2, (6, 7), arguments(3)),
    Problem(2, 2, 2, (9, 8), arguments((3, 5), (2, 1), (1, 2))),
    Problem(2, 2, 2, (3, 2), arguments(7)),
    Problem(2, 2, 2, (1, 1), arguments(3)),
    Problem(2, 2, 2, (5, 9), arguments(5, 3, 2)),
    Problem(0, 2, 2, (5, 9), arguments(5)),
    Problem(1, 8, 8, (8, 9), arguments(7)),
]


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """A tensor in another layout; the same numbers, except that expanding repeats the first image and row."""
    if layout == "channels_last":
        return tensor.to(memory_format=torch.channels_last)
    if layout == "sliced":
        wide = tensor.new_full([size + 3 for size in tensor.shape[:-1]] + [2 * tensor.shape[-1] + 1], torch.nan)
        view = wide[tuple(slice(1, 1 + size) for size in tensor.shape[:-1])][..., 1::2]
        view.copy_(tensor)
        return view
    if layout == "transposed":  # of weights: taps before weight channels, as in the mask of an upsampling
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "expanded":
        return tensor[:1, :, :1].expand_as(tensor)
    return tensor.contiguous()
