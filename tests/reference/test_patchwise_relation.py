"""The three patchwise relations and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_layers.reference import patchwise_relation, patchwise_relation_backward

from . import formulation
from .geometries import batches, many_examples, option, options, seeds, sizes
from .messages import exactly

RELATIONS = ["star", "clique", "concatenation"]


@pytest.mark.parametrize("relation", RELATIONS)
@many_examples
@given(seed=seeds, batch=batches, size=sizes, channels=st.integers(1, 3), options=options)
@example(seed=0, batch=2, size=(7, 7), channels=3, options=option(7))
@example(seed=0, batch=1, size=(2, 3), channels=3, options=option(7))
@example(seed=0, batch=1, size=(1, 1), channels=3, options=option(7, padding_mode="zeros"))
def test_patchwise_relation_and_its_gradients(
    relation: str, seed: int, batch: int, size: tuple[int, int], channels: int, options: dict[str, Any]
) -> None:
    """Forward equals the NumPy formulation; backward equals its exact differences."""
    generator = np.random.default_rng(seed)
    query, key = generator.standard_normal((2, batch, channels, *size))
    output = patchwise_relation(query, key, relation=relation, **options)
    expected = formulation.patchwise_relation(query, key, relation, **options)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)

    grad_output = generator.standard_normal(output.shape)
    gradients = patchwise_relation_backward(grad_output, query, key, relation=relation, **options)
    formulation.assert_gradients(
        lambda query, key: formulation.patchwise_relation(query, key, relation, **options),
        (query, key),
        grad_output,
        gradients,
    )


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        # Two channels, pixels (10, 20) and (30, 40); keys (1, 2) and (3, 5). A row for each relation channel.
        ("star", [[170, 140], [100, 240], [170, 140]]),
        (
            "clique",  # at the first pixel the taps see pixels 1, 0, 1; at the second 0, 1, 0
            [
                [240, 100],
                [140, 170],
                [240, 100],
                [170, 140],
                [100, 240],
                [170, 140],
                [240, 100],
                [140, 170],
                [240, 100],
            ],
        ),
        ("concatenation", [[10, 20], [30, 40], [2, 1], [1, 2], [2, 1], [5, 3], [3, 5], [5, 3]]),
    ],
)
def test_numbers_by_hand(relation: str, expected: list[list[int]]) -> None:
    """Two pixels, two channels, all three relations."""
    query = np.array([[[[10.0, 20.0]], [[30.0, 40.0]]]])
    key = np.array([[[[1.0, 2.0]], [[3.0, 5.0]]]])
    output = patchwise_relation(query, key, (1, 3), relation)
    np.testing.assert_array_equal(output[0, :, 0, :], expected)


def test_concatenation_is_the_default() -> None:
    """It is the paper's default, and the only one of the official code."""
    query, key = np.random.default_rng(0).standard_normal((2, 1, 2, 3, 4))
    concatenation = patchwise_relation(query, key, 3, relation="concatenation")
    np.testing.assert_array_equal(patchwise_relation(query, key, 3), concatenation)
    grad_output = np.ones_like(concatenation)
    explicit = patchwise_relation_backward(grad_output, query, key, 3, relation="concatenation")
    np.testing.assert_array_equal(patchwise_relation_backward(grad_output, query, key, 3), explicit)


@pytest.mark.parametrize("relation", ["Star", "dot", "", None, ["star"]])
def test_unknown_relation_is_refused(relation: Any) -> None:
    """The message lists the three."""
    maps = np.ones((1, 1, 2, 2))
    allowed = "relation must be one of 'star', 'clique', 'concatenation', got "
    for call in (
        lambda: patchwise_relation(maps, maps, 3, relation),
        lambda: patchwise_relation_backward(maps, maps, maps, 3, relation),
    ):
        with pytest.raises(ValueError, match=exactly(allowed + repr(relation))):
            call()
