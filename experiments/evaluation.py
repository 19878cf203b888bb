"""What is measured of a trained network: its accuracy, also on rotated images, and how often an attack succeeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .attack import attack, draw_targets, step_size
from .imagenette import CLASSES, Images
from .recipes import Recipe

BATCH = 64
QUARTERS = (0, 90, 180, 270)
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@torch.no_grad()
def predict(network: nn.Module, pixels: Tensor) -> Tensor:
    """Return the classes (N,) of images, given as bytes or from 0 to 1."""
    parts = pixels.split(BATCH)
    return torch.cat([network(part / 255 if part.dtype == torch.uint8 else part).argmax(1) for part in parts])


def count_correct(network: nn.Module, images: Images, degrees: int = 0) -> int:
    """Count the images that a network classifies correctly, rotated by a multiple of 90 degrees counterclockwise."""
    turned = torch.rot90(images.pixels, degrees // 90, (2, 3))
    return int((predict(network, turned) == images.labels).sum())


def settings(recipe: Recipe) -> dict[tuple[int, float], list[int]]:
    """Return the settings of the attack: for each bound and step size, the numbers of steps, ascending."""
    grouped = defaultdict(list)
    for epsilon in recipe.epsilons:
        for steps in sorted(recipe.attack_steps):
            grouped[epsilon, step_size(epsilon, steps)].append(steps)
    return dict(grouped)


def measure_attack(network: nn.Module, images: Images, epsilon: int, size: float, steps: list[int]) -> Iterator[Any]:
    """Attack images and yield a row for each number of steps.

    The gradients come from the operators of training, the predictions from those of evaluation; ``other_predictions``
    is the number of predictions that differ when the operators of training compute them.
    """
    network.requires_grad_(False)  # only the gradient of the images is needed
    targets = draw_targets(images.labels, len(CLASSES))
    predicted: dict[int, list[Tensor]] = defaultdict(list)
    others: dict[int, int] = defaultdict(int)
    for pixels, part in zip(images.pixels.split(BATCH), targets.split(BATCH), strict=True):
        for count, changed in attack(network, pixels / 255, part, epsilon, size, steps):
            predicted[count].append(predict(network, changed))
            others[count] += int((network(changed.requires_grad_(True)).argmax(1) != predicted[count][-1]).sum())
    for count in steps:
        yield {
            "epsilon": epsilon,
            "steps": count,
            "predictions": digits(torch.cat(predicted[count])),
            "other_predictions": others[count],
        }


def describe_attacked(network: nn.Module, images: Images) -> dict[str, str]:
    """Return labels and targets of the attacked images, and how the network classifies them without an attack."""
    targets = draw_targets(images.labels, len(CLASSES))
    classes = {"labels": images.labels, "targets": targets, "clean": predict(network, images.pixels)}
    return {name: digits(values) for name, values in classes.items()}


def digits(classes: Tensor) -> str:
    """Write classes as a string with a digit for each image.

    >>> digits(torch.tensor([3, 0, 9]))
    '309'
    """
    return "".join(DIGITS[index] for index in classes.tolist())
