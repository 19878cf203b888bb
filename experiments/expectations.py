"""What the paper claims, as comparisons of two networks, written down before the first run.

The paper's own figures for rotations, attacks and ablations could not be confirmed, so only the order is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Expectation(NamedTuple):
    """Which of two networks should be better in a measure."""

    better: str
    worse: str
    strictly: bool
    """Whether a draw contradicts the claim. False for 'matches or beats'."""


def accuracy(resnet: str, pairwise: str, patchwise: str) -> Sequence[Expectation]:
    """Patchwise SANs are more accurate than the ResNet they replace; pairwise SANs match or beat it."""
    return (Expectation(patchwise, resnet, True), Expectation(pairwise, resnet, False))


def robustness(resnet: str, pairwise: str, patchwise: str) -> Sequence[Expectation]:
    """Both SANs lose less accuracy than the ResNet if images are rotated, and attacks on them succeed less often."""
    return (Expectation(pairwise, resnet, True), Expectation(patchwise, resnet, True))


# In each group, the networks from the one that is expected to be most accurate to the least accurate; the paper's
# choice is the first. Nothing is expected of the order of networks that share a rank.
ABLATIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Relation, pairwise": (
        ("san10-pairwise",),
        ("san10-pairwise-summation", "san10-pairwise-concatenation"),
        ("san10-pairwise-hadamard", "san10-pairwise-dot"),
    ),
    "Relation, patchwise": (("san10-patchwise",), ("san10-patchwise-clique", "san10-patchwise-star")),
    "Position, pairwise": (
        ("san10-pairwise",),
        ("san10-pairwise-position-absolute",),
        ("san10-pairwise-position-none",),
    ),
    "Footprint, pairwise": (
        ("san10-pairwise", "san10-pairwise-9x9", "san10-pairwise-11x11"),
        ("san10-pairwise-5x5",),
        ("san10-pairwise-3x3",),
    ),
    "Footprint, patchwise": (
        ("san10-patchwise", "san10-patchwise-9x9", "san10-patchwise-11x11"),
        ("san10-patchwise-5x5",),
        ("san10-patchwise-3x3",),
    ),
}
