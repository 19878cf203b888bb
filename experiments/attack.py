"""Projected gradient descent (PGD) with targets, within an L-infinity ball around each image.

"Towards Deep Learning Models Resistant to Adversarial Attacks" (https://arxiv.org/abs/1706.06083), section 2.1, with a
target class for each image and the image itself as the start. ``torchattack.PGD`` computes the same, as the tests show.
This version leaves the networks unchanged, and computes steps that several settings have in common only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


def step_size(epsilon: int, steps: int) -> float:
    """Return the step in 255ths: far enough to reach every corner of the ball, and at least one level of brightness."""
    return max(1.0, 2.5 * epsilon / steps)


def draw_targets(labels: Tensor, classes: int) -> Tensor:
    """Draw a class other than its label for each image, the same for every network.

    Example:
        >>> labels = torch.tensor([0, 1, 2])
        >>> bool((draw_targets(labels, 3) == labels).any())
        False
    """
    generator = Generator().manual_seed(20)
    offsets = torch.randint(1, classes, labels.shape, generator=generator)
    return (labels.cpu() + offsets).remainder(classes).to(labels.device)


def attack(
    network: nn.Module, images: Tensor, targets: Tensor, epsilon: int, size: float, steps: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Change images so that a network classifies them as the targets, and yield them after some numbers of steps.

    Args:
        network: Maps images from 0 to 1 to logits. It should be in evaluation mode.
        images: Images (N, C, H, W) from 0 to 1.
        targets: The classes (N,) as which they should be classified.
        epsilon: Largest change of a value, in 255ths.
        size: Change of a value in each step, in 255ths.
        steps: Numbers of steps, ascending.

    Yields:
        The number of steps and the changed images, for each of ``steps``.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
        >>> images = torch.rand(2, 3, 2, 2)
        >>> ((steps, changed),) = attack(network, images, torch.tensor([1, 2]), 8, 1.0, [10])
        >>> steps, bool(((changed - images).abs() <= 8.001 / 255).all())
        (10, True)
    """
    changed = images.clone()
    for step in range(1, steps[-1] + 1):
        changed.requires_grad_(True)
        # A sum, so that the step of an image does not depend on the others.
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(changed), targets, reduction="sum"), changed)
        change = (changed.detach() - size / 255 * gradient.sign() - images).clamp(-epsilon / 255, epsilon / 255)
        changed = (images + change).clamp(0, 1)
        if step in steps:
            yield step, changed
