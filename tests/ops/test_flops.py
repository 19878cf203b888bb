"""FLOPs as torch's counter sees them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sa_layers.ops import (
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
from sa_layers.ops.pooled_projection import pooled_projection
from sa_layers.ops.projection import Linear, project

from .attention_problem import make_mapping

needs_kernels = pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
# 2 images, 8 channels, 5 x 6 pixels of which every second row counts, 9 taps
WITHOUT_PRODUCTS = (
    "affine_relu",
    "affine_relu_",
    "channel_statistics",
    "copy",
    "cpu_capability",
    "mask_and_sum",
    "max_pooling",
    "max_pooling_backward",
    "max_pooling_sums",
    "norm_backward",
    "pairwise_attention_implementations",  # lists, for `info`
    "patchwise_attention_implementations",
)
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
    names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("sa_layers::")}
    assert {name.removeprefix("sa_layers::") for name in names} == {*FORMULAS, *WITHOUT_PRODUCTS}
