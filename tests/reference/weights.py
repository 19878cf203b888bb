"""Values and the weights, or logits, that fit them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .formulation import Array, windows

value_and_weight_channels = st.sampled_from([(1, 1), (4, 1), (4, 2), (6, 3), (3, 3)])


def value_and_weight(
    seed: int, batch: int, size: tuple[int, int], channels: tuple[int, int], options: dict[str, Any]
) -> tuple[Array, Array]:
    """Return a random value and a random weight that fit each other."""
    generator = np.random.default_rng(seed)
    value = generator.standard_normal((batch, channels[0], *size))
    unfolded = windows(value, **options)
    return value, generator.standard_normal((batch, channels[1], *unfolded.shape[2:]))
