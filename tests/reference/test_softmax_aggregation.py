"""Softmax over the footprint, then aggregation, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given

from sa_layers.reference import softmax_aggregation, softmax_aggregation_backward

from . import formulation
from .geometries import batches, many_examples, option, options, seeds, sizes
from .weights import value_and_weight, value_and_weight_channels


@many_examples
@given(seed=seeds, batch=batches, size=sizes, channels=value_and_weight_channels, options=options)
@example(seed=0, batch=2, size=(7, 7), channels=(4, 2), options=option(7))
@example(seed=0, batch=1, size=(2, 3), channels=(4, 2), options=option(7))
def test_softmax_aggregation_and_its_gradients(
    seed: int, batch: int, size: tuple[int, int], channels: tuple[int, int], options: dict[str, Any]
) -> None:
    """Forward equals the NumPy formulation; backward equals its differences."""
    value, logits = value_and_weight(seed, batch, size, channels, options)
    output = softmax_aggregation(value, logits, **options)
    expected = formulation.softmax_aggregation(value, logits, **options)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)

    grad_output = np.random.default_rng(seed + 1).standard_normal(output.shape)
    gradients = softmax_aggregation_backward(grad_output, value, logits, **options)
    formulation.assert_gradients(
        lambda value, logits: formulation.softmax_aggregation(value, logits, **options),
        (value, logits),
        grad_output,
        gradients,
        step=1e-4,  # not a polynomial: a small step, and less precision
        tolerance=1e-6,
    )


def test_numbers_by_hand() -> None:
    """Logits 0, log 2, 0 weigh the neighbours 1/4, 1/2, 1/4."""
    value = np.array([[[[4.0, 8.0]]]])
    logits = np.log([1.0, 2.0, 1.0]).reshape(1, 1, 3, 1).repeat(2, axis=3)
    np.testing.assert_allclose(softmax_aggregation(value, logits, (1, 3)), [[[[6, 6]]]], rtol=1e-15)
    # The zero outside the map takes part in the softmax: 0/4 + 4/2 + 8/4, and 4/4 + 8/2 + 0/4.
    np.testing.assert_allclose(
        softmax_aggregation(value, logits, (1, 3), padding_mode="zeros"), [[[[4, 5]]]], rtol=1e-15
    )

    grad_output = np.array([[[[1.0, 0.0]]]])
    grad_value, grad_logits = softmax_aggregation_backward(grad_output, value, logits, (1, 3))
    np.testing.assert_allclose(grad_value, [[[[0.5, 0.5]]]], rtol=1e-15)
    np.testing.assert_allclose(grad_logits[0, 0, :, 0], [(8 - 6) / 4, (4 - 6) / 2, (8 - 6) / 4], rtol=1e-15)
    np.testing.assert_array_equal(grad_logits[0, 0, :, 1], 0)


def test_large_logits_do_not_overflow() -> None:
    """Only differences between logits count."""
    value = np.array([[[[4.0, 8.0]]]])
    logits = np.array([1e4, -1e4, 1e4]).reshape(1, 1, 3, 1).repeat(2, axis=3)
    np.testing.assert_array_equal(softmax_aggregation(value, logits, (1, 3)), [[[[8, 4]]]])
    gradients = softmax_aggregation_backward(np.ones_like(value), value, logits, (1, 3))
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_logit_of_minus_infinity_masks_its_neighbour() -> None:
    """Its weight and its gradient are 0."""
    value = np.array([[[[4.0, 8.0]]]])
    logits = np.array([0.0, 0.0, -np.inf]).reshape(1, 1, 3, 1).repeat(2, axis=3)
    np.testing.assert_array_equal(softmax_aggregation(value, logits, (1, 3)), [[[[6, 6]]]])
    _, grad_logits = softmax_aggregation_backward(np.ones_like(value), value, logits, (1, 3))
    np.testing.assert_array_equal(grad_logits[0, 0], [[1, -1], [-1, 1], [0, 0]])


def test_a_nan_logit_reaches_its_own_footprint_only() -> None:
    """As a softmax in torch does."""
    value = np.array([[[[4.0, 8.0]]]])
    logits = np.zeros((1, 1, 3, 2))
    logits[0, 0, 1, 0] = np.nan
    output = softmax_aggregation(value, logits, (1, 3))
    assert np.isnan(output[0, 0, 0]).tolist() == [True, False]
