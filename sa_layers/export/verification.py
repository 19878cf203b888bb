"""Verification that an exported program returns the same results as the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .errors import ExportError
from .formats import load, outputs


def verify(
    model: nn.Module,
    path: str | Path,
    format: str = "onnx",
    sizes: Iterable[tuple[int, int]] = ((224, 224), (320, 256)),
    in_channels: int = 3,
    tolerance: float = 1e-4,
) -> float:
    """Run an exported program and the model on random images, with a different batch size for each image size.

    Args:
        model: Model that was exported.
        path: File that :func:`export` wrote.
        format: Format of the file.
        sizes: Heights and widths of the images. Defaults to 224 x 224 and 320 x 256.
        in_channels: Number of channels of the images. Defaults to 3.
        tolerance: Maximum absolute difference. It is scaled by the largest absolute output if that exceeds 1. Defaults
            to 1e-4.

    Returns:
        The largest absolute difference.

    Raises:
        ExportError: If the program fails, or the outputs differ in number, shape or dtype, or by more than
            ``tolerance``.
    """
    program, largest = load(path, format), 0.0
    generator = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    for batch, size in enumerate(sizes, start=1):
        image = torch.randn(batch, in_channels, *size, generator=generator).to(parameter)
        with torch.no_grad():
            expected = outputs(model(image))
        with _explained(f"{str(path)!r} fails", size):
            computed = program(image)
        if [(t.shape, t.dtype) for t in computed] != [(t.shape, t.dtype) for t in expected]:
            raise ExportError(
                f"{str(path)!r} returns {_describe(computed)} for an image of shape {tuple(image.shape)}, "
                f"but the model returns {_describe(expected)}"
            )
        for ours, theirs in zip(expected, computed, strict=True):
            difference = (ours - theirs.to(ours)).abs().max().item()
            largest = max(largest, difference)
            if not difference <= tolerance * max(1.0, ours.abs().max().item()):
                raise ExportError(
                    f"{str(path)!r} differs from the model by {difference:.1e} at {size[0]} x {size[1]} pixels, "
                    f"but the tolerance is {tolerance:.0e}"
                )
    return largest


def check_sizes(model: nn.Module, sizes: Iterable[tuple[int, int]], in_channels: int = 3) -> None:
    """Run the model on an image of each size, so that sizes it does not accept are found before it is exported.

    Raises:
        ExportError: If the model fails.
    """
    parameter = next(model.parameters())
    for size in sizes:
        with torch.no_grad(), _explained("the model fails", size):
            model(parameter.new_zeros(1, in_channels, *size))


@contextmanager
def _explained(failure: str, size: tuple[int, int]) -> Iterator[None]:
    """Raise :class:`ExportError` for every error: guards of programs are assertions, runtimes have their own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{failure} for an image of {size[0]} x {size[1]} pixels: {reason[:300]}") from error


def _describe(tensors: tuple[torch.Tensor, ...]) -> str:
    return ", ".join(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in tensors)
