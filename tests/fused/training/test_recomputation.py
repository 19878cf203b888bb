"""Activations that are computed again: with_cp, and torch's checkpoint around a module."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from sa_layers.models import SelfAttentionNetwork

from .conftest import assert_fused
from .step import as_list, check_step, expected_step, plain_torch, take_step
from .subjects import LARGE, features_for, subject


class Checkpointed(nn.Module):
    """A module whose activations are not kept."""

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__()
        self.module, self.options = module, options

    def forward(self, features: Tensor) -> Any:
        return checkpoint(self.module, features, **self.options)


@LARGE
@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_checkpoint(name: str, reentrant: bool) -> None:
    """Running statistics move twice, as they do in plain torch."""
    module = Checkpointed(subject(name), use_reentrant=reentrant)
    features = features_for(name)
    expected = expected_step(module, features)
    check_step(take_step(module, features), expected)


def test_sequences() -> None:
    module, features = subject("pairwise stage"), features_for("pairwise stage", wants_gradient=False)
    blocks = [module.get_submodule(f"blocks.{index}") for index in range(2)]
    results = []
    for context in (plain_torch, torch.enable_grad):
        copies = nn.Sequential(*copy.deepcopy(blocks))
        with context():
            leaf = torch.randn(2, 32, 5, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
            output = checkpoint_sequential(copies, 2, leaf, use_reentrant=False)
            output.square().sum().backward()
        results.append([output, leaf.grad, *(parameter.grad for parameter in copies.parameters()), *copies.buffers()])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)
    del features


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_with_cp(attention: str) -> None:
    """A network that recomputes its blocks: statistics move once, and results are those of one that does not."""
    name = f"{attention} network"
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    for stage in [part for part in module.modules() if hasattr(part, "with_cp")]:
        stage.with_cp = True  # type: ignore[assignment]
    assert_fused(module, features)
    check_step(take_step(module, features), expected)


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_with_cp_keeps_less(attention: str) -> None:
    """At most the map between blocks and the operands of one block."""
    kept = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        options: dict[str, Any] = {"depth": (4, 1, 1, 1, 1), "widths": (64,) * 5, "num_stages": 1, "with_cp": with_cp}
        network = SelfAttentionNetwork(attention=attention, **options)
        sizes: dict[int, int] = {}
        alive = []

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes, alive: list[Tensor] = alive) -> Tensor:
            alive.append(tensor)
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            alive += as_list(network(torch.randn(2, 3, 32, 32)))
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0]
