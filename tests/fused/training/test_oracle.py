"""Blocks and networks in training against an independent implementation of their equations in float64."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import SelfAttentionBlock
from sa_layers.models import SelfAttentionNetwork
from tests.sampling import sample

from . import oracle
from .conftest import assert_fused
from .gaps import open_gaps
from .problem import KINDS, MAPPINGS, SHARED, randomise
from .step import Step, as_list, check_step, random_loss, take_step

BLOCKS = list(product(KINDS, MAPPINGS, SHARED, ("reflect", "zeros"), (3, 5, 7), (1, 2), ((2, 5, 7), (1, 4, 3))))
NORMS: dict[str, tuple[str, ...]] = {
    "batch statistics": (),
    "frozen": ("",),
    "frozen stem and stage": ("stem", "stages.0"),
    "frozen mappings": ("stages.0.blocks.0.attention", "stages.1.blocks.0.attention"),
    "frozen second norm": ("stages.0.blocks.0.attention.mapping.3", "stages.1.blocks.1.norm2"),
}


def prepare(module: nn.Module, features: Tensor, evaluated: tuple[str, ...] = ()) -> None:
    """Random parameters, and norms in evaluation whose names begin so."""
    randomise(module, random.Random(0))
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d) and evaluated:
            part.train(not name.startswith(evaluated))
    module.double()
    open_gaps(module, features)


def oracle_step(function: Any, module: nn.Module, features: Tensor, *arguments: Any) -> Step:
    """The step of the equations on copies of the module's tensors."""
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    leaves = {name: state[name].requires_grad_() for name, _ in module.named_parameters()}
    leaves["input 0"] = features = features.detach().clone().requires_grad_()
    outputs = as_list(function(state, features, *arguments))
    random_loss(outputs)
    return Step(
        {f"output {index}": output.detach() for index, output in enumerate(outputs)},
        {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()},
        {name: state[name] for name, _ in module.named_buffers()},
    )


@pytest.mark.parametrize(
    ("kind", "mapping_layers", "shared", "padding_mode", "kernel_size", "dilation", "shape"),
    sample(BLOCKS, 30),
    ids=str,
)
def test_blocks(
    kind: tuple[str, str, str | None],
    mapping_layers: int,
    shared: str | None,
    padding_mode: str,
    kernel_size: int,
    dilation: int,
    shape: tuple[int, int, int],
) -> None:
    """With batch statistics."""
    torch.manual_seed(0)
    attention, relation, position = kind
    if relation == "clique":
        kernel_size = 3
    options: dict[str, Any] = {"relation": relation, "mapping_layers": mapping_layers, "shared_transforms": shared}
    options |= {"padding_mode": padding_mode, "kernel_size": kernel_size, "dilation": dilation, "attention": attention}
    options |= {"position": position} if attention == "pairwise" else {}
    block = SelfAttentionBlock(32, share=4, relation_channels=8 if shared == "all" else 4, **options)
    batch, height, width = shape
    features = torch.randn(batch, 32, height, width, dtype=torch.float64, requires_grad=True)
    prepare(block, features)
    if mapping_layers == 2 and relation not in ("star", "clique"):
        assert_fused(block, features)
    expected = oracle_step(oracle.block, block, features, options)
    check_step(take_step(block, features), expected)


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_networks(attention: str, norms: str) -> None:
    """Two stages with all outputs; the second has dilated footprints and no pooling."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"depth": (1, 2), "kernel_sizes": (3, 5), "strides": (2, 1), "dilations": (1, 2)}
    network = SelfAttentionNetwork(
        (1, 2, 1, 1, 1), attention, 3, (3, 5, 7, 7, 7), (16, 32, 32, 32, 32), (2, 1, 2, 2, 2), (1, 2, 1, 1, 1),
        out_indices=(0, 1), share=4,
    )  # fmt: skip
    image = torch.randn(3, 3, 13, 10, dtype=torch.float64, requires_grad=True)
    prepare(network, image, NORMS[norms])
    assert_fused(network, image)
    relation = "subtraction" if attention == "pairwise" else "concatenation"
    options |= {"attention": attention, "relation": relation, "mapping_layers": 2, "shared_transforms": None}
    options |= {"position": "relative", "padding_mode": "reflect"}
    expected = oracle_step(oracle.network, network, image, options, NORMS[norms])
    check_step(take_step(network, image), expected)
