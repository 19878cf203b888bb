"""The gradients of both attentions: against autograd, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_layers import reference
from sa_layers.reference import AttentionGradients, BatchNorm, FrozenNorm, MappingLayer, PairPosition

from . import formulation
from .autograd import arrays, attention_and_gradients, convert
from .formulation import Array
from .geometries import batches, many_examples, option, options, seeds, sizes
from .mappings import NORMS, mapping_layers, random_mapping, random_norm
from .messages import exactly

ATTENTIONS = [
    *(("pairwise_attention", name) for name in ("summation", "subtraction", "hadamard", "dot", "concatenation")),
    *(("patchwise_attention", name) for name in ("star", "clique", "concatenation")),
]
every_attention = pytest.mark.parametrize(("name", "relation"), ATTENTIONS, ids=map("-".join, ATTENTIONS))
GEOMETRY = {"kernel_size": 3}


def random_inputs(
    name: str,
    relation: str,
    seed: int,
    batch: int,
    size: tuple[int, int],
    channels: int,
    layers: list[tuple[int, str]],
    position: bool = False,
    epilogue: str = "none",
    **geometry: Any,
) -> tuple[Array, AttentionGradients]:
    """Return a gradient of the output, and all arrays that an attention takes."""
    generator = np.random.default_rng(seed)
    query, key = generator.standard_normal((2, batch, channels, *size))
    value = generator.standard_normal((batch, 4, *size))
    features = getattr(formulation, name.replace("attention", "relation"))(query, key, relation, **geometry)
    matrices = PairPosition(*generator.standard_normal((2, 2, 3))) if position else None
    taps = formulation.windows(value[:1], **geometry).shape[2] if name == "patchwise_attention" else 1
    mapping = random_mapping(seed, features.shape[1] + 2 * position, layers, 2 * taps)
    norm = random_norm(generator, epilogue, 4)
    grad_output = generator.standard_normal((batch, 4, *formulation.output_size(size, geometry.get("stride", 1))))
    return grad_output, AttentionGradients(query, key, value, mapping, matrices, norm)


def backward(
    name: str, relation: str, grad_output: Array, inputs: AttentionGradients, **geometry: Any
) -> tuple[Array, AttentionGradients]:
    query, key, value, mapping, position, epilogue = inputs
    options = geometry | ({"position": position} if name == "pairwise_attention" else {})
    function = getattr(reference, f"{name}_backward")
    result: tuple[Array, AttentionGradients] = function(
        grad_output, query, key, value, mapping, relation=relation, epilogue=epilogue, **options
    )
    return result


@every_attention
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
    seed=0,
    batch=2,
    size=(1, 2),
    channels=2,
    layers=[(1, "frozen")] * 3,
    position=1,
    epilogue="batch",
    options=option(7),
)
def test_equals_autograd(
    name: str,
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
    position = position and name == "pairwise_attention"
    grad_output, inputs = random_inputs(
        name, relation, seed, batch, size, channels, layers, position, epilogue, **options
    )
    output, gradients = backward(name, relation, grad_output, inputs, **options)
    expected_output, expected = attention_and_gradients(name, grad_output, inputs, relation, **options)
    np.testing.assert_allclose(output, expected_output, rtol=1e-9, atol=1e-9)
    assert len(arrays(gradients)) == len(arrays(inputs))
    largest = max(np.abs(array).max(initial=1) for array in arrays(expected))
    for gradient, of_autograd in zip(arrays(gradients), arrays(expected), strict=True):
        np.testing.assert_allclose(gradient, of_autograd, rtol=1e-9, atol=1e-11 * largest)


@every_attention
def test_gradients_have_the_types_of_the_arguments(name: str, relation: str) -> None:
    """A gradient stands where its array does; eps and the size of a position stay."""
    grad_output, inputs = random_inputs(name, relation, 0, 2, (3, 4), 2, [(1, "batch"), (3, "frozen")], **GEOMETRY)
    position = PairPosition(np.ones((1, 3)), np.ones((1, 3)), (9, 8)) if name == "pairwise_attention" else None
    if position is not None:
        weight = np.pad(inputs.mapping[0].weight, ((0, 0), (0, 1)))
        norm = BatchNorm(np.ones(weight.shape[1]), np.ones(weight.shape[1]), eps=0.5)
        inputs = inputs._replace(position=position, mapping=[MappingLayer(norm, weight), inputs.mapping[1]])
    inputs = inputs._replace(epilogue=FrozenNorm(np.ones(4), np.ones(4)))
    _, gradients = backward(name, relation, grad_output, inputs, **GEOMETRY)
    assert convert(gradients, np.shape) == convert(inputs, np.shape)
    assert convert(gradients, type) == convert(inputs, type)


@every_attention
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_computes_in_float64_and_rounds_once(name: str, relation: str, dtype: Any) -> None:
    grad_output, inputs = random_inputs(
        name, relation, 0, 2, (4, 5), 1, [(1, "batch"), (3, "frozen")], epilogue="batch", **GEOMETRY
    )
    narrow = convert((grad_output, inputs), lambda array: array.astype(dtype))
    output, gradients = backward(name, relation, *narrow, **GEOMETRY)
    wide = backward(name, relation, *convert(narrow, lambda array: array.astype(np.float64)), **GEOMETRY)
    assert {array.dtype for array in arrays((output, gradients))} == {np.dtype(dtype)}
    for array, expected in zip(arrays((output, gradients)), arrays(wide), strict=True):
        np.testing.assert_array_equal(array, expected.astype(dtype))


@every_attention
@pytest.mark.parametrize("norm", NORMS)
def test_empty_batch(name: str, relation: str, norm: str) -> None:
    grad_output, inputs = random_inputs(name, relation, 0, 0, (4, 5), 2, [(1, norm)], epilogue=norm, **GEOMETRY)
    output, gradients = backward(name, relation, grad_output, inputs, **GEOMETRY)
    assert output.shape == (0, 4, 4, 5)
    assert convert(gradients, np.shape) == convert(inputs, np.shape)
    assert not any(array.any() for array in arrays(gradients))


def test_a_shift_of_all_logits_has_no_effect_on_a_softmax() -> None:
    """So the gradient of the last bias is zero."""
    grad_output, inputs = random_inputs("pairwise_attention", "dot", 0, 2, (4, 5), 2, [(1, "frozen")], **GEOMETRY)
    layer = inputs.mapping[0]._replace(bias=np.ones(2))
    _, gradients = backward("pairwise_attention", "dot", grad_output, inputs._replace(mapping=[layer]), **GEOMETRY)
    np.testing.assert_allclose(gradients.mapping[0].bias, 0, atol=1e-12)


@every_attention
def test_batch_statistics_remove_mean_and_scale(name: str, relation: str) -> None:
    """So the gradient before a norm with eps = 0 is orthogonal to both: here, that of the layer before it."""
    grad_output, inputs = random_inputs(name, relation, 0, 2, (4, 5), 2, [(1, "none"), (3, "batch")], **GEOMETRY)
    first, last = inputs.mapping
    first, norm = first._replace(bias=np.ones(3)), last.norm
    assert isinstance(norm, BatchNorm)
    inputs = inputs._replace(mapping=[first, last._replace(norm=norm._replace(eps=0.0))])
    _, gradients = backward(name, relation, grad_output, inputs, **GEOMETRY)
    layer = gradients.mapping[0]
    np.testing.assert_allclose(layer.bias, 0, atol=1e-11)
    np.testing.assert_allclose((layer.weight * first.weight).sum(1), 0, atol=1e-11)


def test_numbers_by_hand() -> None:
    """One pixel is related to two others: query 1 sees keys 2, 1, 2, which a ReLU passes with weight 10."""
    query, key = np.array([[[[1.0, 5.0]]]]), np.array([[[[1.0, 2.0]]]])
    value, grad_output = np.array([[[[3.0, 4.0]]]]), np.array([[[[1.0, 0.0]]]])
    mapping = [MappingLayer(FrozenNorm(np.ones(3), np.zeros(3)), 10 * np.eye(3), np.zeros(3))]
    output, gradients = reference.patchwise_attention_backward(grad_output, query, key, value, mapping, (1, 3), "star")
    assert output[0, 0, 0, 0] == 20 * 4 + 10 * 3 + 20 * 4
    np.testing.assert_array_equal(gradients.value, [[[[10, 20 + 20]]]])
    np.testing.assert_array_equal(gradients.query, [[[[10 * (2 * 4 + 1 * 3 + 2 * 4), 0]]]])
    np.testing.assert_array_equal(gradients.key, [[[[10 * 3, 10 * (4 + 4)]]]])
    layer = gradients.mapping[0]
    np.testing.assert_array_equal(layer.bias, [4, 3, 4])
    np.testing.assert_array_equal(layer.weight, np.outer([4, 3, 4], [2, 1, 2]))
    assert isinstance(layer.norm, FrozenNorm)
    np.testing.assert_array_equal(layer.norm.shift, [40, 30, 40])
    np.testing.assert_array_equal(layer.norm.scale, [80, 30, 80])


@every_attention
def test_a_gradient_of_another_shape_is_refused(name: str, relation: str) -> None:
    grad_output, inputs = random_inputs(name, relation, 0, 2, (4, 5), 1, [(1, "none")], **GEOMETRY)
    message = "grad_output must have the shape of the output, (2, 4, 4, 5), got (2, 4, 4, 4)"
    with pytest.raises(ValueError, match=exactly(message)):
        backward(name, relation, grad_output[..., 1:], inputs, **GEOMETRY)
