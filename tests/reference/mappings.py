"""Random mappings γ, with frozen norms and with batch statistics."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from sa_layers.reference import BatchNorm, FrozenNorm, MappingLayer

NORMS = ("frozen", "batch", "none")
# From the features of a pair or a footprint to the weights, the widths and the norms between them.
mapping_layers = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(NORMS)), min_size=1, max_size=3)


def random_norm(generator: np.random.Generator, kind: str, channels: int) -> FrozenNorm | BatchNorm | None:
    """Return a norm of one of the kinds in NORMS."""
    scale, shift = generator.standard_normal((2, channels))
    if kind == "none":
        return None
    return FrozenNorm(scale, shift) if kind == "frozen" else BatchNorm(scale, shift, eps=0.1)


def random_mapping(seed: int, inputs: int, layers: list[tuple[int, str]], outputs: int) -> list[MappingLayer]:
    """Return one layer for each (number of inputs, kind of norm); the first has ``inputs`` whatever its number says."""
    generator = np.random.default_rng(seed)
    widths = [inputs, *(width for width, _ in layers[1:]), outputs]
    return [
        MappingLayer(
            random_norm(generator, kind, fan_in),
            generator.standard_normal((fan_out, fan_in)) / fan_in**0.5,
            generator.standard_normal(fan_out) if generator.random() < 0.5 else None,
        )
        for (fan_in, fan_out), (_, kind) in zip(pairwise(widths), layers, strict=True)
    ]
