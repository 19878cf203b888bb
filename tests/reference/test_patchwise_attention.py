"""Patchwise attention as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_layers.reference import FrozenNorm, MappingLayer, patchwise_attention

from . import formulation
from .geometries import batches, many_examples, option, options, seeds, sizes
from .mappings import NORMS, mapping_layers, random_mapping, random_norm
from .messages import exactly

RELATIONS = ["star", "clique", "concatenation"]


@pytest.mark.parametrize("relation", RELATIONS)
@many_examples
@given(
    seed=seeds,
    batch=batches,
    size=sizes,
    channels=st.integers(1, 3),
    layers=mapping_layers,
    epilogue=st.sampled_from(NORMS),
    options=options,
)
@example(seed=0, batch=2, size=(7, 7), channels=3, layers=[(1, "batch")] * 2, epilogue="none", options=option(7))
@example(seed=0, batch=1, size=(1, 1), channels=2, layers=[(1, "frozen")] * 2, epilogue="none", options=option(7))
def test_equals_the_numpy_formulation(
    relation: str,
    seed: int,
    batch: int,
    size: tuple[int, int],
    channels: int,
    layers: list[tuple[int, str]],
    epilogue: str,
    options: dict[str, Any],
) -> None:
    generator = np.random.default_rng(seed)
    query, key = generator.standard_normal((2, batch, channels, *size))
    value = generator.standard_normal((batch, 4, *size))
    features = formulation.patchwise_relation(query, key, relation, **options)
    taps = formulation.windows(value, **options).shape[2]
    mapping = random_mapping(seed, features.shape[1], layers, 2 * taps)
    norm = random_norm(generator, epilogue, 4)

    output = patchwise_attention(query, key, value, mapping, relation=relation, epilogue=norm, **options)
    weight = formulation.mapping(features, mapping).reshape(batch, 2, taps, -1)
    expected = formulation.aggregation(value, weight, **options)
    if norm is not None:
        expected = formulation.mapping(expected, [MappingLayer(norm, np.eye(4))])
    np.testing.assert_allclose(output, expected, rtol=1e-9, atol=1e-9)


def test_numbers_by_hand() -> None:
    """Both taps beside the centre are weighted by twice their product with it, the centre by 10."""
    query = np.array([[[[1.0, 2.0]]]])
    value = np.array([[[[3.0, 9.0]]]])
    mapping = [MappingLayer(None, np.diag([2.0, 0.0, 2.0]), np.array([0.0, 10.0, 0.0]))]
    output = patchwise_attention(query, query, value, mapping, (1, 3), "star")
    np.testing.assert_array_equal(output, [[[[4 * 9 + 10 * 3 + 4 * 9, 4 * 3 + 10 * 9 + 4 * 3]]]])
    norm = FrozenNorm(np.ones(1), np.full(1, -110.0))
    output = patchwise_attention(query, query, value, mapping, (1, 3), "star", epilogue=norm)
    np.testing.assert_array_equal(output, [[[[0, 4]]]])


def test_outputs_of_the_mapping_are_channels_of_taps() -> None:
    """Output w * T + j weights tap j of channel w."""
    value = np.array([[[[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]]])
    mapping = [MappingLayer(None, np.zeros((6, 3)), np.arange(1.0, 7.0))]
    output = patchwise_attention(value, value, value, mapping, (1, 3), "star", padding_mode="zeros")
    np.testing.assert_array_equal(output, [[[[2, 1, 0]], [[5, 4, 0]]]])


def test_a_mapping_that_does_not_fit_is_refused() -> None:
    maps = np.ones((1, 3, 2, 2))
    message = "mapping[0].weight must have shape (out, 9), got (9, 3)"
    with pytest.raises(ValueError, match=exactly(message)):
        patchwise_attention(maps, maps, maps, [MappingLayer(None, np.ones((9, 3)))], 3, "star")
    for outputs in (18, 10, 3):
        message = f"mapping must have Cw * 9 outputs, where Cw divides value's 3 channels, got {outputs}"
        with pytest.raises(ValueError, match=exactly(message)):
            patchwise_attention(maps, maps, maps, [MappingLayer(None, np.ones((outputs, 9)))], 3, "star")
