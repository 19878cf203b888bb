"""What every operator accepts, returns and refuses: dtypes, layouts, empty batches, shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sa_layers import reference

from .messages import exactly

Array = NDArray[Any]
# Each operator with the names of its two inputs, and the keyword that picks its relation.
OPERATORS = [
    ("aggregation", ("value", "weight"), {}),
    ("softmax_aggregation", ("value", "logits"), {}),
    *(
        ("pairwise_relation", ("query", "key"), {"relation": relation})
        for relation in ("summation", "subtraction", "hadamard", "dot", "concatenation")
    ),
    *(
        ("patchwise_relation", ("query", "key"), {"relation": relation})
        for relation in ("star", "clique", "concatenation")
    ),
]
every_operator = pytest.mark.parametrize(
    ("name", "arguments", "relation"),
    OPERATORS,
    ids=["-".join([name, *relation.values()]) for name, _, relation in OPERATORS],
)


def operator(name: str, relation: dict[str, str]) -> tuple[Callable[..., Array], Callable[..., tuple[Array, Array]]]:
    """Return forward and backward with a 3x3 footprint on a 4x5 map."""
    forward, backward = getattr(reference, name), getattr(reference, f"{name}_backward")
    return (
        lambda *arrays: forward(*arrays, kernel_size=3, **relation),
        lambda *arrays: backward(*arrays, kernel_size=3, **relation),
    )


def make_inputs(name: str, batch: int = 2, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Return two inputs that fit the operator."""
    generator = np.random.default_rng(0)
    second_shape = (2, 9, 20) if name.endswith("aggregation") else (4, 4, 5)
    first, second = generator.standard_normal((batch, 4, 4, 5)), generator.standard_normal((batch, *second_shape))
    return first.astype(dtype), second.astype(dtype)


@every_operator
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_computes_in_float64_and_rounds_once(name: str, arguments: Any, relation: Any, dtype: Any) -> None:
    """A result in a narrow dtype is the float64 result, rounded to it."""
    forward, backward = operator(name, relation)
    inputs = make_inputs(name, dtype=dtype)
    wide_inputs = [array.astype(np.float64) for array in inputs]
    output = forward(*inputs)
    assert output.dtype == dtype
    np.testing.assert_array_equal(output, forward(*wide_inputs).astype(dtype))

    gradients = backward(output, *inputs)
    wide_gradients = backward(output.astype(np.float64), *wide_inputs)
    for gradient, wide in zip(gradients, wide_gradients, strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, wide.astype(dtype))


@every_operator
def test_mixed_dtypes_promote_and_gradients_keep_their_own(name: str, arguments: Any, relation: Any) -> None:
    """The output follows NumPy's promotion, each gradient the input that it belongs to."""
    forward, backward = operator(name, relation)
    first, second = make_inputs(name)
    narrow = first.astype(np.float16), second.astype(np.float32)
    assert forward(*narrow).dtype == np.float32
    grad_output = forward(first, second)
    assert [gradient.dtype for gradient in backward(grad_output, *narrow)] == [np.float16, np.float32]


@every_operator
def test_empty_batch(name: str, arguments: Any, relation: Any) -> None:
    """N = 0 gives N = 0."""
    forward, backward = operator(name, relation)
    inputs = make_inputs(name, batch=0)
    output = forward(*inputs)
    assert output.shape == (0, *forward(*make_inputs(name, batch=1)).shape[1:])
    assert [gradient.shape for gradient in backward(output, *inputs)] == [array.shape for array in inputs]


@every_operator
@pytest.mark.parametrize("layout", ["channels_last", "fortran", "sliced", "reversed", "read_only", "big_endian"])
def test_layout_does_not_matter(name: str, arguments: Any, relation: Any, layout: str) -> None:
    """Neither do strides, byte order or the right to write, and no input is written to."""

    def laid_out(array: Array) -> Array:
        if layout == "channels_last":
            return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        if layout == "fortran":
            return np.asfortranarray(array)
        if layout == "sliced":
            return np.repeat(array, 2, axis=3)[..., ::2]
        if layout == "reversed":
            return np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]
        if layout == "big_endian":
            return array.astype(">f8")
        array = array.copy()
        array.flags.writeable = False
        return array

    forward, backward = operator(name, relation)
    inputs = make_inputs(name)
    before = [array.copy() for array in inputs]
    other_inputs = [laid_out(array) for array in inputs]
    output = forward(*inputs)
    np.testing.assert_array_equal(forward(*other_inputs), output)
    for gradient, other in zip(backward(output, *inputs), backward(laid_out(output), *other_inputs), strict=True):
        np.testing.assert_array_equal(gradient, other)
    for array, other, original in zip(inputs, other_inputs, before, strict=True):
        np.testing.assert_array_equal(array, original)
        np.testing.assert_array_equal(other, original)


@every_operator
@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([[1.0]], "must be a NumPy array, got list"),
        (np.ones((2, 4, 4, 5), dtype=np.int64), "must be float16, float32 or float64, got int64"),
        (np.ones((2, 4, 4, 5), dtype=np.complex128), "must be float16, float32 or float64, got complex128"),
    ],
)
def test_inputs_that_are_not_floating_arrays_are_refused(
    name: str, arguments: tuple[str, str], relation: Any, position: int, wrong: Any, message: str
) -> None:
    """By name, forward and backward."""
    forward, backward = operator(name, relation)
    inputs: list[Any] = list(make_inputs(name))
    output = forward(*inputs)
    inputs[position] = wrong
    for call in (lambda: forward(*inputs), lambda: backward(output, *inputs)):
        with pytest.raises(TypeError, match=exactly(f"{arguments[position]} {message}")):
            call()


@every_operator
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 4, 5), "must have shape (N, C, H, W), got (4, 4, 5)"),
        ((2, 0, 4, 5), "must have at least one channel, row and column, got shape (2, 0, 4, 5)"),
        ((2, 4, 0, 5), "must have at least one channel, row and column, got shape (2, 4, 0, 5)"),
    ],
)
def test_maps_of_a_wrong_shape_are_refused(
    name: str, arguments: tuple[str, str], relation: Any, shape: tuple[int, ...], message: str
) -> None:
    """Only the batch may be empty."""
    forward, backward = operator(name, relation)
    wrong = np.ones(shape)
    _, second = make_inputs(name)
    for call in (lambda: forward(wrong, second), lambda: backward(wrong, wrong, second)):
        with pytest.raises(ValueError, match=exactly(f"{arguments[0]} {message}")):
            call()


@every_operator
def test_a_grad_output_that_does_not_fit_is_refused(name: str, arguments: Any, relation: Any) -> None:
    """With the shape that would fit."""
    forward, backward = operator(name, relation)
    inputs = make_inputs(name)
    output = forward(*inputs)
    expected = f"grad_output must have the shape of the output, {output.shape}, got {output[:1].shape}"
    with pytest.raises(ValueError, match=exactly(expected)):
        backward(output[:1], *inputs)
    with pytest.raises(TypeError, match="grad_output must be float16, float32 or float64, got int32"):
        backward(output.astype(np.int32), *inputs)
    with pytest.raises(TypeError, match="grad_output must be a NumPy array, got NoneType"):
        backward(None, *inputs)


@pytest.mark.parametrize("name", ["aggregation", "softmax_aggregation"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 9, 20), "must have shape (N, Cw, Kh*Kw, Ho*Wo) = (2, Cw, 9, 20), got (1, 2, 9, 20)"),
        ((2, 2, 8, 20), "must have shape (N, Cw, Kh*Kw, Ho*Wo) = (2, Cw, 9, 20), got (2, 2, 8, 20)"),
        ((2, 2, 9, 4, 5), "must have shape (N, Cw, Kh*Kw, Ho*Wo) = (2, Cw, 9, 20), got (2, 2, 9, 4, 5)"),
        ((2, 3, 9, 20), "must have channels that divide value's 4, got 3 channels"),
        ((2, 8, 9, 20), "must have channels that divide value's 4, got 8 channels"),
        ((2, 0, 9, 20), "must have channels that divide value's 4, got 0 channels"),
    ],
)
def test_a_weight_that_does_not_fit_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    """With the shape that would fit."""
    forward, backward = operator(name, {})
    value = np.ones((2, 4, 4, 5))
    argument = "weight" if name == "aggregation" else "logits"
    for call in (lambda: forward(value, np.ones(shape)), lambda: backward(value, value, np.ones(shape))):
        with pytest.raises(ValueError, match=exactly(f"{argument} {message}")):
            call()


@pytest.mark.parametrize("name", ["pairwise_relation", "patchwise_relation"])
def test_query_and_key_of_different_shapes_are_refused(name: str) -> None:
    """Nothing is broadcast."""
    forward, backward = operator(name, {})
    query, key = np.ones((2, 4, 4, 5)), np.ones((2, 1, 4, 5))
    message = "key must have the shape of query, (2, 4, 4, 5), got (2, 1, 4, 5)"
    for call in (lambda: forward(query, key), lambda: backward(query, query, key)):
        with pytest.raises(ValueError, match=exactly(message)):
            call()


def test_everything_promised_is_there() -> None:
    """Each operator has a backward, and __all__ names both."""
    for name in {name for name, _, _ in OPERATORS}:
        assert {name, f"{name}_backward"} <= set(reference.__all__)
    assert all(callable(getattr(reference, name)) for name in reference.__all__)
