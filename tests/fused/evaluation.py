"""Small modules in evaluation, and their answers by the fused path and by calling their modules."""

from __future__ import annotations

import copy
import functools
import random
from typing import Any

import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.models import SelfAttentionNetwork
from sa_layers.ops import fused

SMALL: dict[str, Any] = {"depth": (1, 2, 1, 1, 1), "widths": (16, 32, 32, 32, 32), "kernel_sizes": (3,) * 5}
SMALL |= {"num_stages": 2, "share": 4}
SUBJECTS = {
    "pairwise network": lambda: SelfAttentionNetwork(**SMALL, out_indices=(0, 1)),
    "patchwise network": lambda: SelfAttentionNetwork(attention="patchwise", **SMALL),
    "pairwise stage": lambda: SelfAttentionNetwork(**SMALL, position_image_size=16).stages[1],
    "patchwise stage": lambda: SelfAttentionNetwork(attention="patchwise", **SMALL, relation="star").stages[1],
    "pairwise block": lambda: SelfAttentionBlock(32, 3, relation="summation", share=4),
    "patchwise block": lambda: SelfAttentionBlock(32, 3, "patchwise", shared_transforms="query_key", share=4),
    "block with an unfused attention": lambda: SelfAttentionBlock(32, 3, "patchwise", mapping_layers=3, share=4),
    "pairwise layer": lambda: PairwiseSelfAttention(16, 16, 3, position="absolute", mapping_layers=3),
    "one channel": lambda: PairwiseSelfAttention(1, 1, 3, relation="dot", position=None, share=1),
    "patchwise layer": lambda: PatchwiseSelfAttention(16, 16, 3, share=4),
}
TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 3e-2, torch.bfloat16: 1e-1}


def subject(name: str) -> nn.Module:
    """A module in evaluation mode whose norms do something."""
    return copy.deepcopy(_made(name))


@functools.cache
def _made(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = SUBJECTS[name]().eval()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 2)
                norm.bias.uniform_(0, 0.5)
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.5, 2)
        for layer in module.modules():
            if isinstance(layer, PairwiseSelfAttention):  # weights far from equal, so that the relation matters
                layer.mapping[-1].weight.mul_(10)
    return module


def features_for(name: str) -> Tensor:
    """An input of odd size, so that options of poolings make a difference."""
    channels = {"network": 3, "stage": 16, "block": 32, "attention": 32, "channel": 1, "layer": 16}[name.split()[-1]]
    return torch.randn(2, channels, 17, 15, generator=torch.Generator().manual_seed(0))


def answer(module: nn.Module, features: Tensor, *, by_modules: bool = False) -> list[Tensor] | str:
    """The outputs, or the type of the error; in the dtype of the module."""
    dtype = next((tensor.dtype for tensor in module.parameters()), features.dtype)
    with fused(not by_modules):
        try:
            outputs = module(features.to(dtype))
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            return type(error).__name__
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def check_answer(module: nn.Module, features: Tensor) -> list[Tensor] | None:
    """The module answers what its modules do, and with a gradient if they have one; returns the answer if it is one."""
    expected, results = answer(module, features, by_modules=True), answer(module, features)
    if isinstance(expected, str):
        mixed = len({tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()}) > 1
        assert isinstance(results, str) or mixed, f"{expected} expected"  # the fused path promotes dtypes
        return None
    assert not isinstance(results, str), results
    for result, wanted in zip(results, expected, strict=True):
        assert result.shape == wanted.shape
        assert result.dtype == wanted.dtype
        assert result.requires_grad == wanted.requires_grad
        assert difference(result, wanted) <= TOLERANCES[wanted.dtype]
    return results


def difference(result: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest value that is wanted; infinite for another shape."""
    if result.shape != wanted.shape:
        return float("inf")
    result, wanted = result.detach().double(), wanted.detach().double()
    return float((result - wanted).abs().max() / wanted.abs().max().clamp(min=1e-3))


def a_module(module: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...], dice: random.Random) -> Any:
    """One of the modules of a type."""
    return dice.choice([part for part in module.modules() if isinstance(part, kind)])
