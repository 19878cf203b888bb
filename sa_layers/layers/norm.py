"""Construction of norms, with an error that names the layer whose channels do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

NormLayer = Callable[[int], nn.Module]


class NormError(ValueError):
    """A norm cannot be made for the channels of a layer: ``NormError(layer, channels, reason)``, or a whole message."""

    def __str__(self) -> str:
        """The message: the layer, its channels, the reason, and for groups the numbers that divide the channels."""
        if len(self.args) != 3:  # mmengine makes another error of the same type
            return super().__str__()
        layer, channels, reason = self.args
        message = f"norm_layer cannot normalise the {channels} channels of {layer}: {reason}"
        if "group" in reason:
            divisors = [str(number) for number in range(1, channels + 1) if channels % number == 0]
            message += f"; {channels} is divisible by {', '.join(divisors)}"
        return message


def make_norm(norm_layer: NormLayer, channels: int, layer: str) -> nn.Module:
    """Make a norm.

    Args:
        norm_layer: Makes a norm for a number of channels.
        channels: The number of channels.
        layer: Name of the norm in the module that contains it.

    Raises:
        NormError: ``norm_layer`` raised a ``ValueError``, such as a group norm whose groups do not divide the channels.

    Example:
        >>> make_norm(lambda channels: nn.GroupNorm(32, channels), 40, "norm1")
        Traceback (most recent call last):
        ...
        sa_layers.layers.norm.NormError: norm_layer cannot normalise the 40 channels of norm1: num_channels (40) must be
        divisible by num_groups (32); 40 is divisible by 1, 2, 4, 5, 8, 10, 20, 40
    """
    try:
        return norm_layer(channels)
    except ValueError as error:
        raise NormError(layer, channels, str(error)) from error


@contextmanager
def inside(module: str) -> Iterator[None]:
    """Prefix the layer that a :class:`NormError` of the block names with the module that contains it."""
    try:
        yield
    except NormError as error:
        if len(error.args) == 3:
            error.args = (f"{module}.{error.args[0]}", *error.args[1:])
        raise
