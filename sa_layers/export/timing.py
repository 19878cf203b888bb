"""The time of an exported program beside that of its model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..benchmark.measure import Timing, time_interleaved
from .formats import load


def time_program(
    model: nn.Module,
    path: str | Path,
    format: str = "onnx",
    size: tuple[int, int] = (224, 224),
    in_channels: int = 3,
    seconds: float = 1.0,
) -> tuple[Timing, Timing]:
    """Time an exported program and its model in turns, on as many threads as torch uses.

    Args:
        model: Model that was exported.
        path: File that :func:`export` wrote.
        format: Format of the file.
        size: Height and width of the image. Defaults to 224 x 224.
        in_channels: Number of channels of the image. Defaults to 3.
        seconds: Time limit. At least five rounds are measured. Defaults to 1.

    Returns:
        The timings of the program and of the model for one image.
    """
    program, parameter = load(path, format, torch.get_num_threads()), next(model.parameters())
    image = torch.randn(1, in_channels, *size).to(parameter)
    calls = {"program": lambda: program(image), "model": torch.no_grad()(lambda: model(image))}
    timings = time_interleaved(calls, image.device, seconds=seconds)
    return timings["program"], timings["model"]
