"""The five pairwise relations and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_layers.reference import pairwise_relation, pairwise_relation_backward

from . import formulation
from .geometries import batches, many_examples, option, options, seeds, sizes
from .messages import exactly

RELATIONS = ["summation", "subtraction", "hadamard", "dot", "concatenation"]


@pytest.mark.parametrize("relation", RELATIONS)
@many_examples
@given(seed=seeds, batch=batches, size=sizes, channels=st.integers(1, 3), options=options)
@example(seed=0, batch=2, size=(7, 7), channels=3, options=option(7))
@example(seed=0, batch=1, size=(2, 3), channels=3, options=option(7))
@example(seed=0, batch=1, size=(1, 1), channels=3, options=option(7, padding_mode="zeros"))
def test_pairwise_relation_and_its_gradients(
    relation: str, seed: int, batch: int, size: tuple[int, int], channels: int, options: dict[str, Any]
) -> None:
    """Forward equals the NumPy formulation; backward equals its exact differences."""
    generator = np.random.default_rng(seed)
    query, key = generator.standard_normal((2, batch, channels, *size))
    output = pairwise_relation(query, key, relation=relation, **options)
    expected = formulation.pairwise_relation(query, key, relation, **options)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)

    grad_output = generator.standard_normal(output.shape)
    gradients = pairwise_relation_backward(grad_output, query, key, relation=relation, **options)
    formulation.assert_gradients(
        lambda query, key: formulation.pairwise_relation(query, key, relation, **options),
        (query, key),
        grad_output,
        gradients,
    )


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        # Two channels, pixels (10, 20) and (30, 40); keys (1, 2) and (3, 5). A row for each tap: left, centre, right.
        ("summation", [[[12, 21], [11, 22], [12, 21]], [[35, 43], [33, 45], [35, 43]]]),
        ("subtraction", [[[8, 19], [9, 18], [8, 19]], [[25, 37], [27, 35], [25, 37]]]),
        ("hadamard", [[[20, 20], [10, 40], [20, 20]], [[150, 120], [90, 200], [150, 120]]]),
        ("dot", [[[170, 140], [100, 240], [170, 140]]]),
        (
            "concatenation",
            [
                [[10, 20], [10, 20], [10, 20]],
                [[30, 40], [30, 40], [30, 40]],
                [[2, 1], [1, 2], [2, 1]],
                [[5, 3], [3, 5], [5, 3]],
            ],
        ),
    ],
)
def test_numbers_by_hand(relation: str, expected: list[list[list[int]]]) -> None:
    """Two pixels, two channels, all five relations."""
    query = np.array([[[[10.0, 20.0]], [[30.0, 40.0]]]])
    key = np.array([[[[1.0, 2.0]], [[3.0, 5.0]]]])
    np.testing.assert_array_equal(pairwise_relation(query, key, (1, 3), relation), [expected])


def test_subtraction_is_the_default() -> None:
    """It is the paper's default, and the only one of the official code."""
    query, key = np.random.default_rng(0).standard_normal((2, 1, 2, 3, 4))
    subtraction = pairwise_relation(query, key, 3, relation="subtraction")
    np.testing.assert_array_equal(pairwise_relation(query, key, 3), subtraction)
    grad_output = np.ones_like(subtraction)
    explicit = pairwise_relation_backward(grad_output, query, key, 3, relation="subtraction")
    np.testing.assert_array_equal(pairwise_relation_backward(grad_output, query, key, 3), explicit)


@pytest.mark.parametrize(
    ("relation", "expected"),
    [("summation", [7]), ("subtraction", [7]), ("hadamard", [0]), ("dot", [0]), ("concatenation", [7, 0])],
)
def test_key_is_zero_outside_under_zero_padding(relation: str, expected: list[int]) -> None:
    """So subtraction leaves query_i there: the border is not masked."""
    query, key = np.full((1, 1, 1, 1), 7.0), np.full((1, 1, 1, 1), 5.0)
    output = pairwise_relation(query, key, 3, relation, padding_mode="zeros")
    for tap in (0, 1, 2, 3, 5, 6, 7, 8):  # all but the centre
        assert output[0, :, tap, 0].tolist() == expected


def test_query_is_read_at_the_centre_of_a_strided_footprint() -> None:
    """By hand: columns 0 and 2 of four are the centres of stride 2."""
    query = np.array([[[[1.0, 2.0, 3.0, 4.0]]]])
    output = pairwise_relation(query, np.zeros_like(query), (1, 3), "summation", stride=(1, 2))
    np.testing.assert_array_equal(output, [[[[1, 3]] * 3]])


@pytest.mark.parametrize("relation", ["Subtraction", "star", "", None, ["dot"]])
def test_unknown_relation_is_refused(relation: Any) -> None:
    """The message lists the five."""
    maps = np.ones((1, 1, 2, 2))
    allowed = "relation must be one of 'summation', 'subtraction', 'hadamard', 'dot', 'concatenation', got "
    for call in (
        lambda: pairwise_relation(maps, maps, 3, relation),
        lambda: pairwise_relation_backward(maps, maps, maps, 3, relation),
    ):
        with pytest.raises(ValueError, match=exactly(allowed + repr(relation))):
            call()
