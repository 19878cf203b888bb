"""Random operands from a seed: sizes, footprints, numbers both usual and extreme, and layouts in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .oracle import Array, Footprint

DTYPES = (torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16)
LAYOUTS = ("contiguous", "channels_last", "sliced", "channel_slice", "expanded", "transposed")
EXTREMES = ("offset", "large", "small", "pixel")
MAX_NUMBERS = 150_000  # of all footprints of a map, so that a problem takes milliseconds


class Draw:
    """The choices of one problem, the same for the same seed in every process."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype: torch.dtype = self.one_of(DTYPES)
        self.extreme: str = self.one_of(EXTREMES) if self.chance(0.4) else ""

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)

    def one_of(self, items: Any) -> Any:
        return items[self.random.integers(len(items))]

    def up_to(self, most: int) -> int:
        """A number from 1 to ``most``, small ones more often."""
        return min(int(np.exp(self.random.uniform(0, np.log(most + 1)))), most)

    def channels(self, most: int = 40) -> int:
        return self.one_of((1, 2, 4, 8, 16, 32)) if self.chance(0.3) else self.up_to(most)

    def geometry(self, channels: int, most_taps: int = 121) -> tuple[int, tuple[int, int], dict[str, Any]]:
        """The batch, the size of the map, and the footprint as keyword arguments."""
        kernel = [self.one_of((1, 3, 3, 5, 5, 7, 7, 9, 11)) for _ in range(2)]
        stride, dilation = ([self.one_of((1, 1, 1, 2, 3)) for _ in range(2)] for _ in range(2))
        if self.chance(0.5):
            kernel[1], stride[1], dilation[1] = kernel[0], stride[0], dilation[0]
        if self.chance(0.1):
            dilation[self.random.integers(2)] = self.one_of((7, 20, 301))
        size = [self.up_to(20), self.up_to(70)]
        if self.chance(0.5):
            size = [self.up_to(24), self.up_to(24)]
        batch = 0 if self.chance(0.02) else self.one_of((1, 1, 2, 3))
        while kernel[0] * kernel[1] > most_taps:
            kernel[int(np.argmax(kernel))] -= 2
        while True:
            outputs = [-(-length // step) for length, step in zip(size, stride, strict=True)]
            if batch * channels * np.prod(kernel) * np.prod(outputs) <= MAX_NUMBERS:
                break
            if batch > 1:
                batch -= 1
            else:
                longest = int(np.argmax(size))
                size[longest] = size[longest] * 2 // 3
                if max(size) < 3:
                    break
        mode = self.one_of(("reflect", "zeros"))
        names = ("kernel_size", "stride", "dilation")
        footprint = dict(zip(names, map(tuple, (kernel, stride, dilation)), strict=True))
        return batch, (size[0], size[1]), footprint | {"padding_mode": mode}

    def window_geometry(self, channels: int) -> tuple[int, tuple[int, int], dict[str, Any]]:
        """As ``geometry``, and sometimes with windows that are moved inwards at the border."""
        batch, size, arguments = self.geometry(channels)
        if self.chance(0.7):
            return batch, size, arguments
        kernel, dilation = list(arguments["kernel_size"]), [min(step, 4) for step in arguments["dilation"]]
        room = [max(side, 3) for side in size]
        for axis in range(2):
            while kernel[axis] * dilation[axis] > room[axis]:
                if dilation[axis] > 1:
                    dilation[axis] -= 1
                else:
                    kernel[axis] -= 2
        clamped = {"kernel_size": tuple(kernel), "dilation": tuple(dilation), "padding_mode": "clamp"}
        return batch, (room[0], room[1]), arguments | clamped

    def normal(self, *shape: int) -> Array:
        return self.random.standard_normal(shape)

    def map(self, *shape: int, extreme: bool = True) -> Tensor:
        """A feature map in the dtype of the problem, of any layout, with its extreme values unless ``extreme``."""
        numbers = self.normal(*shape)
        if extreme and self.extreme == "offset":
            numbers += self.one_of((-1, 1)) * 10.0 ** self.random.integers(1, 4)
        elif extreme and self.extreme in ("large", "small"):
            numbers *= 10.0 ** (2 if self.extreme == "large" else -self.random.integers(3, 8))
        elif extreme and self.extreme == "pixel" and numbers.size and self.chance(0.5):
            where = [self.random.integers(length) for length in shape]
            channel = where[1] if self.chance(0.5) else slice(None)
            numbers[where[0], channel, where[2], where[3]] = self.one_of((np.inf, -np.inf, np.nan))
        return self.lay_out(torch.from_numpy(numbers).to(self.dtype))

    def lay_out(self, tensor: Tensor) -> Tensor:
        """The same numbers in another layout; what lies between them is NaN. Expanding repeats the first of an axis."""
        layout = self.one_of(LAYOUTS)
        if layout == "channels_last":
            return tensor.to(memory_format=torch.channels_last)
        if layout == "sliced":
            steps = [self.one_of((1, 1, 2)) for _ in tensor.shape]
            shape = [length * step + 3 for length, step in zip(tensor.shape, steps, strict=True)]
            index = tuple(slice(1, 1 + n * step, step) for n, step in zip(tensor.shape, steps, strict=True))
            return tensor.new_full(shape, torch.nan)[index].copy_(tensor)
        if layout == "channel_slice":
            batch, channels, height, width = tensor.shape
            before = self.random.integers(0, 9)
            wide = tensor.new_full((batch, height, width, channels + 12), torch.nan).permute(0, 3, 1, 2)
            return wide[:, before : before + channels].copy_(tensor)
        if layout == "expanded":
            axis = int(self.random.integers(4))
            return tensor.narrow(axis, 0, min(1, tensor.shape[axis])).expand_as(tensor)
        if layout == "transposed":
            return tensor.transpose(2, 3).contiguous().transpose(2, 3)
        return tensor.contiguous()

    def parameter(self, *shape: int, factor: float = 1.0, half: bool = False) -> Tensor:
        """In the dtype of accumulation; sometimes not contiguous; with ``half``, sometimes in that of the maps."""
        numbers = torch.from_numpy(self.normal(*shape) * factor)
        dtype = self.dtype if half and self.chance(0.5) else torch.promote_types(self.dtype, torch.float32)
        numbers = numbers.to(dtype)
        if self.chance(0.2):
            return numbers.new_full((*shape, 2), torch.nan)[..., 1].copy_(numbers)
        return numbers

    def layer(self, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The scale, shift, weight and bias of a layer of a mapping."""
        weight = self.parameter(outputs, inputs, factor=inputs**-0.5, half=True)
        bias = self.parameter(outputs).to(weight.dtype)
        return self.parameter(inputs), self.parameter(inputs), weight, bias


def array(tensor: Tensor) -> Array:
    """A tensor as the oracle takes it."""
    return tensor.detach().double().numpy()


def footprint_of(tensor: Tensor, arguments: dict[str, Any]) -> Footprint:
    """The oracle's footprint on a map, (N, C, H, W)."""
    return Footprint((tensor.shape[2], tensor.shape[3]), **arguments)
