"""What both attentions accept, return and refuse: dtypes, empty batches, mappings, norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sa_layers import reference
from sa_layers.reference import BatchNorm, FrozenNorm, MappingLayer

from .formulation import Array
from .mappings import random_mapping
from .messages import exactly

# Name, channels of the relation of one channel with a 3x3 footprint, outputs of the mapping for a weight channel.
every_attention = pytest.mark.parametrize(
    ("name", "inputs", "outputs"), [("pairwise_attention", 1, 1), ("patchwise_attention", 10, 9)]
)
VECTOR = np.ones(1)


def maps(batch: int = 2, dtype: Any = np.float64) -> list[Array]:
    """Return query, key and value of one, one and two channels."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal((batch, channels, 4, 5)).astype(dtype) for channels in (1, 1, 2)]


@every_attention
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_computes_in_float64_and_rounds_once(name: str, inputs: int, outputs: int, dtype: Any) -> None:
    attention, arrays = getattr(reference, name), maps(dtype=dtype)
    mapping = random_mapping(0, inputs, [(1, "batch"), (3, "frozen")], 2 * outputs)
    output = attention(*arrays, mapping, 3)
    assert output.dtype == dtype
    wide = attention(*(array.astype(np.float64) for array in arrays), mapping, 3)
    np.testing.assert_array_equal(output, wide.astype(dtype))


@every_attention
def test_layout_does_not_matter(name: str, inputs: int, outputs: int) -> None:
    attention, mapping = getattr(reference, name), random_mapping(0, inputs, [(1, "batch")], 2 * outputs)
    expected = attention(*maps(), mapping, 3)
    columns = [MappingLayer(norm, np.asfortranarray(weight), bias) for norm, weight, bias in mapping]
    np.testing.assert_array_equal(attention(*map(np.asfortranarray, maps()), columns, 3), expected)


@every_attention
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_empty_batch(name: str, inputs: int, outputs: int, norm: str) -> None:
    mapping = random_mapping(0, inputs, [(1, norm)], 2 * outputs)
    assert getattr(reference, name)(*maps(0), mapping, 3).shape == (0, 2, 4, 5)


@every_attention
def test_batch_statistics_are_those_of_the_whole_batch(name: str, inputs: int, outputs: int) -> None:
    """Frozen norms treat each image alone; those with batch statistics do not care for a copy of the batch."""
    attention = getattr(reference, name)
    for kind, alone in (("frozen", True), ("batch", False)):
        mapping = random_mapping(0, inputs, [(1, kind)], 2 * outputs)
        output = attention(*maps(), mapping, 3)
        first = attention(*(array[:1] for array in maps()), mapping, 3)
        assert np.allclose(first, output[:1]) == alone
        twice = attention(*(np.concatenate([array, array]) for array in maps()), mapping, 3)
        np.testing.assert_allclose(twice, np.concatenate([output, output]), rtol=1e-10, atol=1e-10)


@every_attention
def test_a_norm_does_not_change_when_its_input_is_scaled_and_shifted(name: str, inputs: int, outputs: int) -> None:
    """Of batch statistics with eps = 0."""
    generator = np.random.default_rng(1)
    norm = BatchNorm(*generator.standard_normal((2, 3)), eps=0.0)
    first, last = generator.standard_normal((3, inputs)), generator.standard_normal((2 * outputs, 3))
    scale, shift = np.array([[2.0], [0.5], [7.0]]), np.array([1.0, -4.0, 0.0])
    results = [
        getattr(reference, name)(*maps(), [MappingLayer(None, weight, bias), MappingLayer(norm, last)], 3)
        for weight, bias in ((first, None), (scale * first, shift))
    ]
    np.testing.assert_allclose(*results, rtol=1e-10, atol=1e-10)


@every_attention
def test_a_nan_passes_through_the_mapping(name: str, inputs: int, outputs: int) -> None:
    """A ReLU keeps it, as torch's does."""
    query, key, value = maps()
    key[0, 0, 0, 0] = np.nan
    mapping = random_mapping(0, inputs, [(1, "frozen"), (2, "frozen")], 2 * outputs)
    output = getattr(reference, name)(query, key, value, mapping, 3)
    assert np.isnan(output[0, :, :2, :2]).all()
    assert np.isfinite(output[0, :, 2:, 2:]).all()
    assert np.isfinite(output[1]).all()


@every_attention
@pytest.mark.parametrize("position", [0, 1, 2])
def test_inputs_that_are_not_floating_arrays_are_refused(name: str, inputs: int, outputs: int, position: int) -> None:
    argument = ("query", "key", "value")[position]
    for wrong, message in (
        ([1.0], "a NumPy array, got list"),
        (np.ones(1, int), "float16, float32 or float64, got int64"),
    ):
        arrays: list[Any] = maps()
        arrays[position] = wrong
        with pytest.raises(TypeError, match=exactly(f"{argument} must be {message}")):
            getattr(reference, name)(*arrays, random_mapping(0, inputs, [(1, "none")], outputs), 3)


@every_attention
def test_maps_of_different_sizes_are_refused(name: str, inputs: int, outputs: int) -> None:
    attention, mapping = getattr(reference, name), random_mapping(0, inputs, [(1, "none")], outputs)
    query, key, value = maps()
    with pytest.raises(ValueError, match=exactly("key must have the shape of query, (2, 1, 4, 5), got (2, 1, 4, 4)")):
        attention(query, key[..., 1:], value, mapping, 3)
    message = "value must have shape (2, C, 4, 5) for this query, got (1, 2, 4, 5)"
    with pytest.raises(ValueError, match=exactly(message)):
        attention(query, key, value[:1], mapping, 3)


@every_attention
def test_unknown_relation_is_refused(name: str, inputs: int, outputs: int) -> None:
    with pytest.raises(ValueError, match=r"relation must be one of '.*', got 'cosine'"):
        getattr(reference, name)(*maps(), random_mapping(0, inputs, [(1, "none")], outputs), 3, "cosine")


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ([], ValueError, "mapping must have at least one layer, got none"),
        ([1], TypeError, "mapping must be a sequence of MappingLayer, got [1]"),
        ([MappingLayer(None, [[1.0]])], TypeError, "mapping[0].weight must be a NumPy array, got list"),
        ([MappingLayer(None, VECTOR)], ValueError, "mapping[0].weight must have shape (out, 1), got (1,)"),
        (
            [MappingLayer(None, np.ones((2, 1))), MappingLayer(None, np.ones((1, 1)))],
            ValueError,
            "mapping[1].weight must have shape (out, 2), got (1, 1)",
        ),
        (
            [MappingLayer(None, np.ones((1, 1)), np.ones(2))],
            ValueError,
            "mapping[0].bias must have shape (1,), got (2,)",
        ),
        (
            [MappingLayer(VECTOR, np.ones((1, 1)))],
            TypeError,
            "mapping[0].norm must be a FrozenNorm, a BatchNorm or None, got ndarray",
        ),
        (
            [MappingLayer(FrozenNorm(VECTOR, np.ones(2)), np.ones((1, 1)))],
            ValueError,
            "mapping[0].norm.shift must have shape (1,), got (2,)",
        ),
        (
            [MappingLayer(BatchNorm(np.ones(2), VECTOR), np.ones((1, 1)))],
            ValueError,
            "mapping[0].norm.weight must have shape (1,), got (2,)",
        ),
        (
            [MappingLayer(BatchNorm(VECTOR, VECTOR, eps=-1.0), np.ones((1, 1)))],
            ValueError,
            "mapping[0].norm.eps must be at least 0, got -1.0",
        ),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(mapping: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=exactly(message)):
        reference.pairwise_attention(*maps(), mapping, 3)


@every_attention
def test_an_epilogue_that_does_not_fit_is_refused(name: str, inputs: int, outputs: int) -> None:
    mapping, message = (
        random_mapping(0, inputs, [(1, "none")], outputs),
        "epilogue.scale must have shape (2,), got (1,)",
    )
    with pytest.raises(ValueError, match=exactly(message)):
        getattr(reference, name)(*maps(), mapping, 3, epilogue=FrozenNorm(VECTOR, VECTOR))
