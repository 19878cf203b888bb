"""FLOPs as torch's counter sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sa_layers.fused.evaluation.operator import evaluate
from sa_layers.ops import (
    Footprint,
    aggregation,
    backend,
    extension,
    fused,
    pairwise_attention,
    pairwise_relation,
    patchwise_attention,
    patchwise_relation,
    softmax_aggregation,
)
from sa_layers.ops.flops import FORMULAS
from sa_layers.ops.linear_training import linear_backward_input, linear_backward_weight, linear_forward
from sa_layers.ops.pairwise_relation import relation_width
from sa_layers.ops.pairwise_training import (
    pairwise_backward,
    pairwise_correction,
    pairwise_forward,
    pairwise_moments,
    pairwise_norm_backward,
    pairwise_statistics,
)
from sa_layers.ops.pairwise_training_operands import PairwiseGeometry, PairwiseMapping
from sa_layers.ops.pooled_projection import pooled_projection
from sa_layers.ops.projection import Linear, project

from .attention_problem import make_mapping

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
WITHOUT_PRODUCTS = (
    "affine_relu",
    "affine_relu_",
    "channel_statistics",
    "copy",
    "cpu_capability",
    "evaluate",  # its operators count their own
    "mask_and_sum",
    "max_pooling",
    "max_pooling_backward",
    "max_pooling_sums",
    "norm_backward",
    "norm_gradient",
    "norm_scale_and_shift",
    "norm_track",
    "pairwise_attention_implementations",  # lists, for `info`
    "patchwise_attention_implementations",
    "patchwise_row_sums",
    "patchwise_subtract_norm",
)
# 2 images, 8 channels, 5 x 6 pixels of which every second row counts, 9 taps
PAIRS = 2 * 8 * (3 * 6) * 9


def count(function: Callable[..., Tensor], *operands: Tensor) -> tuple[int, int]:
    """FLOPs of the forward and of the backward pass."""
    operands = tuple(operand.requires_grad_() for operand in operands)
    with FlopCounterMode(display=False) as forward:
        output = function(*operands)
    with FlopCounterMode(display=False) as backward:
        output.square().sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


@needs_kernels
@pytest.mark.parametrize("operator", [aggregation, softmax_aggregation])
def test_aggregations(operator: Callable[..., Tensor]) -> None:
    """A multiply-add each; twice as many backward, for value and weight."""
    value, weight = torch.randn(2, 8, 5, 6), torch.randn(2, 2, 9, 18)
    with backend("native"):
        assert count(lambda *operands: operator(*operands, 3, (2, 1)), value, weight) == (2 * PAIRS, 4 * PAIRS)


@needs_kernels
@pytest.mark.parametrize(
    ("relation", "forward", "backward"),
    [("subtraction", 1, 2), ("summation", 1, 2), ("hadamard", 1, 4), ("dot", 2, 4), ("concatenation", 0, 2)],
)
def test_pairwise_relations(relation: str, forward: int, backward: int) -> None:
    query, key = torch.randn(2, 8, 5, 6), torch.randn(2, 8, 5, 6)
    with backend("native"):
        counted = count(lambda *operands: pairwise_relation(*operands, 3, relation, (2, 1)), query, key)
    assert counted == (forward * PAIRS, backward * PAIRS)


@needs_kernels
@pytest.mark.parametrize(
    "relation", ["subtraction", "hadamard", "concatenation"]
)  # of one channel einsum is no product
def test_pairwise_attention_counts_as_what_it_is_made_of(relation: str) -> None:
    query, key, value = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6), torch.randn(2, 8, 5, 6)
    width = 8 if relation == "concatenation" else 4
    mapping, counted = make_mapping(torch.randn, [width, 3, 2]), []
    for enabled in (True, False):
        with backend("native"), fused(enabled), torch.no_grad(), FlopCounterMode(display=False) as counter:
            pairwise_attention(query, key, value, mapping, 3, relation, (2, 1))
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


@needs_kernels
@pytest.mark.parametrize(("relation", "features"), [("concatenation", 40), ("clique", 81)])
def test_patchwise_attention_counts_as_what_it_is_made_of(relation: str, features: int) -> None:
    """Plain torch counts the linear layers and the clique, and not the aggregation."""
    query, key, value = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6), torch.randn(2, 8, 5, 6)
    mapping, counted = make_mapping(torch.randn, [features, 2, 18]), []
    for name in ("native", "torch"):
        with backend(name), torch.no_grad(), FlopCounterMode(display=False) as counter:
            patchwise_attention(query, key, value, mapping, 3, relation, (2, 1))
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] + 2 * PAIRS


PASSES = ("statistics", "moments", "forward", "backward", "correction", "norm_backward")


def count_pairwise_training(name: str, relation: str) -> dict[str, int]:
    """FLOPs of each pass, for 8 channels, 3 hidden ones and 2 weights, on a backend."""
    geometry = PairwiseGeometry(Footprint.parse(3, (2, 1)), relation)
    features = relation_width(relation, 8)
    vectors, hidden = [torch.ones(features) for _ in range(4)], [torch.ones(3), torch.ones(3)]
    mapping = PairwiseMapping(*vectors, torch.ones(3, features), *hidden, torch.ones(2, 3))
    query, key, value = maps = [torch.randn(2, 5, 6, 8) for _ in range(3)]
    grads = [torch.zeros_like(item) for item in maps]
    matrix, rows = torch.ones(features, features).double(), torch.ones(2, features).double()
    with backend(name):
        output, logsumexp = pairwise_forward(query, key, value, geometry, mapping)
        passes: dict[str, Callable[[], object]] = {
            "statistics": lambda: pairwise_statistics(query, key, geometry),
            "moments": lambda: pairwise_moments(query, key, geometry, *vectors[:2]),
            "forward": lambda: pairwise_forward(query, key, value, geometry, mapping),
            "backward": lambda: pairwise_backward(output, *maps, output, logsumexp, geometry, mapping, *grads),
            "correction": lambda: pairwise_correction(query, key, geometry, mapping, matrix, rows[0], *grads[:2]),
            "norm_backward": lambda: pairwise_norm_backward(query, key, geometry, mapping, rows, *grads[:2]),
        }
        counted = {}
        for step in PASSES:
            with FlopCounterMode(display=False) as counter:
                passes[step]()
            counted[step] = counter.get_total_flops()
    return counted


@needs_kernels
@pytest.mark.parametrize(
    ("relation", "forward", "backward"),
    [("subtraction", 1, 2), ("summation", 1, 2), ("hadamard", 1, 4), ("dot", 2, 4), ("concatenation", 0, 2)],
)
def test_passes_of_pairwise_training(relation: str, forward: int, backward: int) -> None:
    """Of 8 channels: the relation once in each pass, and its gradients, as test_pairwise_relations counts them."""
    features = relation_width(relation, 8)
    layers, products = features * 3 + 3 * 2, features * features
    expected = {
        "statistics": 8 * forward,
        "moments": 8 * forward + 2 * products,
        "forward": 8 * forward + 2 * layers + 2 * 8,
        "backward": 8 * (forward + backward) + 3 * 2 * layers + 2 * 2 * 8,
        "correction": 8 * (forward + backward) + 2 * products,
        "norm_backward": 8 * (forward + backward),
    }
    counted = count_pairwise_training("native", relation)
    assert counted == {step: PAIRS // 8 * flops for step, flops in expected.items()}


@needs_kernels
@pytest.mark.parametrize("relation", ["subtraction", "hadamard", "concatenation"])
def test_passes_of_pairwise_training_count_the_products_of_plain_torch(relation: str) -> None:
    """Plain torch counts neither the relation nor the aggregation."""
    forward = {"concatenation": 0}.get(relation, 1)
    backward = {"hadamard": 4}.get(relation, 2)
    elementwise = dict.fromkeys(PASSES, forward) | dict.fromkeys(PASSES[3:], forward + backward)
    elementwise["forward"] += 2  # the aggregation
    elementwise["backward"] += 4
    native, in_torch = (count_pairwise_training(name, relation) for name in ("native", "torch"))
    assert native == {step: in_torch[step] + PAIRS * elementwise[step] for step in PASSES}


@pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
@pytest.mark.parametrize("tail", [(), (1, 1)])
def test_linear_layers_in_training(name: str, tail: tuple[int, ...]) -> None:
    """Three products of the same factors."""
    pixels, grad = torch.randn(2, 3, 4, 20), torch.randn(2, 3, 4, 11)
    weights = [torch.randn(5, 20, *tail), torch.randn(6, 20, *tail)]
    passes: list[Callable[[], object]] = [
        lambda: linear_forward(pixels, weights, [None, None], None),
        lambda: linear_backward_input(grad, weights),
        lambda: linear_backward_weight(grad, pixels, None, [5, 6], True),
    ]
    for step in passes:
        with backend(name), FlopCounterMode(display=False) as counter:
            step()
        assert counter.get_total_flops() == 2 * (2 * 3 * 4) * 20 * 11


@pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
def test_layers_of_a_pixel_count_without_their_padding(name: str) -> None:
    features, weights = torch.randn(2, 3, 4, 20), [torch.randn(5, 20), torch.randn(6, 20)]
    with backend(name):
        linear = Linear.of_layers(weights, [None, None])
        with FlopCounterMode(display=False) as counter:
            project(features, linear, linear.new_map(features))
    assert counter.get_total_flops() == 2 * (2 * 3 * 4) * 20 * 11


@pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
def test_a_projection_counts_before_it_is_pooled(name: str) -> None:
    with backend(name), FlopCounterMode(display=False) as counter:
        pooled_projection(torch.randn(2, 3, 8, 6), torch.randn(3, 5), torch.zeros(5))
    assert counter.get_total_flops() == 2 * (2 * 8 * 6) * 3 * 5


@pytest.mark.parametrize("name", ["torch", pytest.param("native", marks=needs_kernels)])
def test_a_clique_is_a_matrix_product(name: str) -> None:
    query, key = torch.randn(2, 8, 5, 6), torch.randn(2, 8, 5, 6)
    with backend(name):
        counted = count(lambda *operands: patchwise_relation(*operands, 3, "clique", (2, 1)), query, key)
    assert counted == (2 * 9 * PAIRS, 4 * 9 * PAIRS)


def test_plain_torch_counts_products_of_matrices_only() -> None:
    with backend("torch"):
        assert count(
            lambda *operands: aggregation(*operands, 3), torch.randn(2, 8, 5, 6), torch.randn(2, 2, 9, 30)
        ) == (0, 0)


@needs_kernels
def test_every_operator_has_a_formula() -> None:
    assert evaluate.namespace == "sa_layers"  # its module defines it
    names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("sa_layers::")}
    assert {name.removeprefix("sa_layers::") for name in names} == {*FORMULAS, *WITHOUT_PRODUCTS}
