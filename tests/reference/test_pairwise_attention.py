"""Pairwise attention as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_layers.reference import (
    FrozenNorm,
    MappingLayer,
    PairPosition,
    pairwise_attention,
)
from sa_layers.reference.position import pair_position

from . import formulation
from .geometries import batches, many_examples, option, options, seeds, sizes
from .mappings import NORMS, mapping_layers, random_mapping, random_norm
from .messages import exactly

RELATIONS = ["summation", "subtraction", "hadamard", "dot", "concatenation"]


@pytest.mark.parametrize("relation", RELATIONS)
@many_examples
@given(
    seed=seeds,
    batch=batches,
    size=sizes,
    channels=st.integers(1, 3),
    layers=mapping_layers,
    position=st.booleans(),
    epilogue=st.sampled_from(NORMS),
    options=options,
)
@example(
    seed=0, batch=2, size=(7, 7), channels=3, layers=[(1, "batch")] * 2, position=1, epilogue="none", options=option(7)
)
@example(
    seed=0, batch=1, size=(1, 1), channels=2, layers=[(1, "frozen")] * 2, position=1, epilogue="none", options=option(7)
)
def test_equals_the_numpy_formulation(
    relation: str,
    seed: int,
    batch: int,
    size: tuple[int, int],
    channels: int,
    layers: list[tuple[int, str]],
    position: bool,
    epilogue: str,
    options: dict[str, Any],
) -> None:
    generator = np.random.default_rng(seed)
    query, key = generator.standard_normal((2, batch, channels, *size))
    value = generator.standard_normal((batch, 4, *size))
    features = formulation.pairwise_relation(query, key, relation, **options)
    encoding = PairPosition(*generator.standard_normal((2, 3, 3))) if position else None
    if encoding is not None:
        encoded = formulation.pair_position(*encoding[:2], size, **options)
        features = np.concatenate([features, np.repeat(encoded, batch, axis=0)], axis=1)
    mapping = random_mapping(seed, features.shape[1], layers, 2)
    norm = random_norm(generator, epilogue, 4)

    output = pairwise_attention(
        query, key, value, mapping, relation=relation, position=encoding, epilogue=norm, **options
    )
    expected = formulation.softmax_aggregation(value, formulation.mapping(features, mapping), **options)
    if norm is not None:
        expected = formulation.mapping(expected, [MappingLayer(norm, np.eye(4))])
    np.testing.assert_allclose(output, expected, rtol=1e-9, atol=1e-9)


def test_numbers_by_hand() -> None:
    """The relation itself as the logit: log 2 between two different neighbours, 0 between equal ones."""
    query = np.log(2) * np.array([[[[1.0, 2.0]]]])
    value = np.array([[[[3.0, 9.0]]]])
    mapping = [MappingLayer(None, np.ones((1, 1)))]
    # Pixel 0 sees 1, 0, 1 with relu(-log 2), 0, relu(-log 2); pixel 1 sees 0, 1, 0 with log 2, 0, log 2.
    output = pairwise_attention(query, query, value, mapping, (1, 3))
    np.testing.assert_allclose(output, [[[[(9 + 3 + 9) / 3, (2 * 3 + 9 + 2 * 3) / 5]]]], rtol=1e-15)
    output = pairwise_attention(query, query, value, mapping, (1, 3), epilogue=FrozenNorm(np.ones(1), np.full(1, -5.0)))
    np.testing.assert_allclose(output, [[[[2, 0]]]], rtol=1e-15)


def test_padding_with_zeros_keeps_neighbours_outside_in_the_softmax() -> None:
    """Each with the logit of a zero key and the value 0."""
    ones, mapping = np.ones((1, 1, 1, 1)), [MappingLayer(None, np.full((1, 1), np.log(2)))]
    # The logit of the centre is 0 and that of its eight neighbours, relu(1 - 0) * log 2.
    output = pairwise_attention(ones, ones, ones, mapping, 3, padding_mode="zeros")
    np.testing.assert_allclose(output, [[[[1 / (1 + 8 * 2)]]]], rtol=1e-15)


@pytest.mark.parametrize(
    ("height", "width", "size", "rows", "columns"),
    [
        (2, 3, None, [-1, 1], [-1, 0, 1]),
        (1, 1, None, [-1], [-1]),
        (1, 3, (5, 9), [0], [-0.25, 0, 0.25]),
        (3, 2, (2, 2), [-2, 0, 2], [-1, 1]),
    ],
)
def test_coordinates(height: int, width: int, size: Any, rows: list[float], columns: list[float]) -> None:
    """Horizontal first, from -1 to 1 across the map, or across one of the given size in the middle of which it lies."""
    position = PairPosition(np.eye(3), np.zeros((3, 3)), size)
    encoded = pair_position(position, (height, width), 1, 1, 1, "reflect").reshape(3, height, width)
    np.testing.assert_array_equal(encoded[0], np.broadcast_to(columns, (height, width)))
    np.testing.assert_array_equal(encoded[1], np.broadcast_to(np.array(rows)[:, None], (height, width)))
    np.testing.assert_array_equal(encoded[2], 1)


@pytest.mark.parametrize(
    ("position", "error", "message"),
    [
        (np.eye(3), TypeError, "position must be a PairPosition or None, got ndarray"),
        (PairPosition([[1.0]], np.eye(3)), TypeError, "position.query must be a NumPy array, got list"),
        (PairPosition(np.eye(2), np.eye(2)), ValueError, "position.query must have shape (P, 3), got (2, 2)"),
        (
            PairPosition(np.eye(3), np.eye(2, 3)),
            ValueError,
            "position.key must have the shape of position.query, (3, 3), got (2, 3)",
        ),
        (PairPosition(np.eye(3), np.eye(3), (1, 4)), ValueError, "position.size must be at least 2, got (1, 4)"),
    ],
)
def test_a_position_that_does_not_fit_is_refused(position: Any, error: type[Exception], message: str) -> None:
    maps, mapping = np.ones((1, 1, 2, 2)), [MappingLayer(None, np.ones((1, 4)))]
    with pytest.raises(error, match=exactly(message)):
        pairwise_attention(maps, maps, maps, mapping, 3, position=position)


def test_a_mapping_that_does_not_fit_is_refused() -> None:
    maps = np.ones((1, 3, 2, 2))
    message = "mapping[0].weight must have shape (out, 6), got (1, 3)"
    with pytest.raises(ValueError, match=exactly(message)):
        pairwise_attention(maps, maps, maps, [MappingLayer(None, np.ones((1, 3)))], 3, "concatenation")
    message = "mapping must have Cw outputs, where Cw divides value's 3 channels, got 2"
    with pytest.raises(ValueError, match=exactly(message)):
        pairwise_attention(maps, maps, maps, [MappingLayer(None, np.ones((2, 3)))], 3)
