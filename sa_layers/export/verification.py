"""Whether a written program computes what the model computes."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Runs a written program and the model on random images, of another batch size for every image size.

    Args:
        model: The model that :func:`export` was given.
        path: The file that it wrote.
        format: Its format.
        sizes: Heights and widths of the images. Defaults to 224 x 224 and 320 x 256.
        in_channels: Channels of the images. Defaults to 3.
        tolerance: The largest difference allowed, times the largest output where that exceeds 1. Defaults to 1e-4.

    Returns:
        The largest difference, absolute.

    Raises:
        ExportError: The program's outputs differ in number, shape, dtype or by more than ``tolerance``.
    """
    program, largest = load(path, format), 0.0
    generator = torch.Generator().manual_seed(0)
    parameter = next(model.parameters())
    for batch, size in enumerate(sizes, start=1):
        image = torch.randn(batch, in_channels, *size, generator=generator).to(parameter)
        with torch.no_grad():
            expected = outputs(model(image))
        computed = program(image)
        if [(t.shape, t.dtype) for t in computed] != [(t.shape, t.dtype) for t in expected]:
            raise ExportError(
                f"{str(path)!r} computes {_describe(computed)} from {tuple(image.shape)}, "
                f"the model {_describe(expected)}"
            )
        for ours, theirs in zip(expected, computed, strict=True):
            difference = (ours - theirs.to(ours)).abs().max().item()
            largest = max(largest, difference)
            if not difference <= tolerance * max(1.0, ours.abs().max().item()):
                raise ExportError(
                    f"{str(path)!r} differs from the model by {difference:.1e} at {size[0]} x {size[1]} pixels, "
                    f"where at most {tolerance:.0e} is allowed"
                )
    return largest


def _describe(tensors: tuple[torch.Tensor, ...]) -> str:
    return ", ".join(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in tensors)
