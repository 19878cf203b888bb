"""In-place operations before and after a layer or a block compute what the same operations out of place do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.ops import PAIRWISE_RELATIONS, PATCHWISE_RELATIONS, backend, extension

OPERATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (Tensor.relu_, Tensor.relu),
    "add": (lambda features: features.add_(1), lambda features: features.add(1)),
    "mul": (lambda features: features.mul_(2), lambda features: features.mul(2)),
}
# An identity in place of a norm leaves every in-place activation directly behind an operator.
MODULES: dict[str, Callable[[], nn.Module]] = {
    f"{kind.__name__}-{relation}-{norm.__name__}": partial(kind, 16, 16, 3, relation=relation, norm_layer=norm)
    for kind, relations in ((PairwiseSelfAttention, PAIRWISE_RELATIONS), (PatchwiseSelfAttention, PATCHWISE_RELATIONS))
    for relation in relations
    for norm in (nn.BatchNorm2d, nn.Identity)
}
MODULES |= {
    f"SelfAttentionBlock-{attention}-{norm.__name__}": partial(SelfAttentionBlock, 32, 3, attention, norm_layer=norm)
    for attention in ("pairwise", "patchwise")
    for norm in (nn.BatchNorm2d, nn.Identity)
}


def results(module: nn.Module, operation: Callable[[Tensor], Tensor], channels: int) -> list[Tensor]:
    """The output between two operations, and the gradients of input and parameters."""
    features = torch.randn(2, channels, 5, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    output = operation(module(operation(2 * features)))
    gradients = torch.autograd.grad(output.square().sum(), [features, *module.parameters()])
    return [output, *gradients]


@pytest.mark.parametrize("computed_by", ["native", "torch"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_between_in_place_operations(name: str, training: bool, computed_by: str) -> None:
    """In training and in evaluation, with gradients and without."""
    if computed_by == "native" and not extension.is_available():
        pytest.skip(str(extension.why_not()))
    torch.manual_seed(0)
    module, channels = MODULES[name]().double().train(training), 32 if "Block" in name else 16
    with backend(computed_by):
        for in_place, out_of_place in OPERATIONS.values():
            torch.testing.assert_close(
                results(module, in_place, channels), results(module, out_of_place, channels), rtol=0, atol=0
            )
            with torch.no_grad():
                features = torch.randn(2, channels, 5, 4).double()
                kept = module(features)
                torch.testing.assert_close(
                    in_place(module(in_place(features.clone()))), out_of_place(module(out_of_place(features)))
                )
                torch.testing.assert_close(module(features), kept)  # nothing that a later call needs was overwritten
