"""Aggregation and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import example, given

from sa_layers.reference import aggregation, aggregation_backward

from . import formulation
from .geometries import batches, many_examples, option, options, seeds, sizes
from .weights import value_and_weight, value_and_weight_channels


@many_examples
@given(seed=seeds, batch=batches, size=sizes, channels=value_and_weight_channels, options=options)
@example(seed=0, batch=2, size=(7, 7), channels=(4, 2), options=option(7))
@example(seed=0, batch=1, size=(2, 3), channels=(4, 2), options=option(7))
@example(seed=0, batch=1, size=(1, 1), channels=(4, 2), options=option(7, padding_mode="zeros"))
def test_aggregation_and_its_gradients(
    seed: int, batch: int, size: tuple[int, int], channels: tuple[int, int], options: dict[str, Any]
) -> None:
    """Forward equals the NumPy formulation; backward equals its exact differences."""
    value, weight = value_and_weight(seed, batch, size, channels, options)
    output = aggregation(value, weight, **options)
    np.testing.assert_allclose(output, formulation.aggregation(value, weight, **options), rtol=1e-12, atol=1e-12)

    grad_output = np.random.default_rng(seed + 1).standard_normal(output.shape)
    gradients = aggregation_backward(grad_output, value, weight, **options)
    formulation.assert_gradients(
        lambda value, weight: formulation.aggregation(value, weight, **options),
        (value, weight),
        grad_output,
        gradients,
    )


@many_examples
@given(seed=seeds, batch=batches, size=sizes, channels=value_and_weight_channels, options=options)
def test_both_gradients_are_adjoint_to_aggregation(
    seed: int, batch: int, size: tuple[int, int], channels: tuple[int, int], options: dict[str, Any]
) -> None:
    """<A(v, w), g> = <v, grad_v> = <w, grad_w>."""
    value, weight = value_and_weight(seed, batch, size, channels, options)
    output = aggregation(value, weight, **options)
    grad_output = np.random.default_rng(seed + 1).standard_normal(output.shape)
    grad_value, grad_weight = aggregation_backward(grad_output, value, weight, **options)
    product = np.vdot(output, grad_output)
    np.testing.assert_allclose(np.vdot(value, grad_value), product, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.vdot(weight, grad_weight), product, rtol=1e-10, atol=1e-10)


def test_numbers_by_hand() -> None:
    """A row 1, 2, 4 with a different weight under every tap and pixel."""
    value = np.array([[[[1.0, 2.0, 4.0]]]])
    weight = np.array([[[[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0]]]])
    reflected = [[[[2 + 10 + 200, 2 + 40 + 800, 6 + 120 + 600]]]]
    zeros = [[[[0 + 10 + 200, 2 + 40 + 800, 6 + 120 + 0]]]]
    np.testing.assert_array_equal(aggregation(value, weight, (1, 3)), reflected)
    np.testing.assert_array_equal(aggregation(value, weight, (1, 3), padding_mode="zeros"), zeros)

    grad_output = np.array([[[[1.0, 0.0, 10.0]]]])
    grad_value, grad_weight = aggregation_backward(grad_output, value, weight, (1, 3))
    np.testing.assert_array_equal(grad_value, [[[[10, 1 + 100 + 30 + 3000, 300]]]])
    np.testing.assert_array_equal(grad_weight, [[[[2, 0, 20], [1, 0, 40], [2, 0, 20]]]])


def test_weight_channels_are_shared_interleaved() -> None:
    """Channel c uses weight c % Cw, not c // (C / Cw)."""
    value = np.ones((1, 6, 1, 1))
    weight = np.array([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    assert aggregation(value, weight, 1).ravel().tolist() == [1, 10, 100, 1, 10, 100]

    grad_output = np.arange(1.0, 7.0).reshape(1, 6, 1, 1)
    _, grad_weight = aggregation_backward(grad_output, value, weight, 1)
    assert grad_weight.ravel().tolist() == [1 + 4, 2 + 5, 3 + 6]
