"""Compiled training at several sizes: no view is kept for a backward pass, and inductor's gradients are right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.ir import get_stride_order

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.ops import backend
from sa_layers.ops.backend import decide
from sa_layers.ops.compiled import copy as copy_operator
from tests.sampling import exhaustive, sample

Attention = Callable[..., nn.Module]
BACKENDS = sorted({"torch", decide(torch.device("cpu"))})
VARIANTS: list[tuple[str, Attention, dict[str, Any]]] = [
    (name, attention, {"relation": relation} | options)
    for attention in (PairwiseSelfAttention, PatchwiseSelfAttention)
    for relation in attention.relations
    for options in ({}, {"stride": 2, "dilation": 2, "padding_mode": "zeros"})
    for name in BACKENDS
]


def gradients(layer: nn.Module, features: Tensor, module: nn.Module) -> tuple[Tensor, ...]:
    """Of the loss of ``module(features)``; ``layer`` has the parameters."""
    return torch.autograd.grad(module(features).square().mean(), [features, *layer.parameters()])


@pytest.mark.parametrize(("name", "attention", "options"), sample(VARIANTS, 2, seed=5), ids=str)
def test_no_view_is_kept(name: str, attention: Attention, options: dict[str, Any]) -> None:
    """Inductor sorts the strides of the views that one compiled pass hands to another, so it must be able to."""
    kept = []

    def inspect(module: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        (output,) = module.graph.find_nodes(op="output")
        for node in output.all_input_nodes:
            if isinstance(value := node.meta["val"], Tensor):
                kept.append(node)
                if value._is_view():
                    get_stride_order(value.stride())
        return make_boxed_func(module.forward)

    torch.compiler.reset()
    compiler = aot_autograd(
        fw_compiler=inspect,
        bw_compiler=inspect,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table,
    )
    layer = attention(8, 8, 3, **options)
    with backend(name):
        gradients(
            layer,
            torch.randn(2, 8, 7, 9, requires_grad=True),
            torch.compile(layer, backend=compiler, dynamic=True, fullgraph=True),
        )
    assert kept


SIZES = [(2, 8, 7, 9), (3, 8, 10, 5), *([(4, 8, 6, 11)] if exhaustive() else [])]


@pytest.mark.slow
def test_inductor_at_several_sizes() -> None:
    """Convolutions make inductor compile anew for each."""
    torch.compiler.reset()
    layer = nn.Sequential(PairwiseSelfAttention(8, 8, 3), PatchwiseSelfAttention(8, 8, 3)).double()
    for norm in layer.modules():
        if isinstance(norm, nn.BatchNorm2d):  # a pixel's own position is 0, where the ReLU after the norm has its kink
            nn.init.uniform_(norm.bias, 0.1, 0.2)
    other = copy.deepcopy(layer)
    compiled = torch.compile(layer, dynamic=True, fullgraph=True)
    for size in SIZES:
        features = torch.randn(size, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(gradients(layer, features, compiled), gradients(other, features, other))
    for buffer, expected in zip(layer.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected)


def test_the_copy_is_an_operator() -> None:
    torch.library.opcheck(copy_operator, (torch.randn(2, 3, 4, requires_grad=True).transpose(0, 1),))
