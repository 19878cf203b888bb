"""Folded tensors follow their sources through everything that changes a parameter."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers.folding import Folded


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.computed = 0
        self.folded = Folded(self.double)

    def double(self, weight: Tensor) -> tuple[Tensor]:
        self.computed += 1
        return (2 * weight,)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.folded([self.weight])[0]


def step(module: Doubling) -> None:
    module.weight.grad = torch.full((3,), 0.5)
    torch.optim.SGD(module.parameters(), lr=1.0).step()


def assign(module: Doubling) -> None:
    module.weight.data = torch.full((3,), 7.0)


def replace(module: Doubling) -> None:
    module.weight = nn.Parameter(torch.full((3,), 5.0))


CHANGES = {
    "optimizer": step,
    "state dict": lambda module: module.load_state_dict({"weight": torch.arange(3.0)}),
    "assigned state dict": lambda module: module.load_state_dict({"weight": torch.arange(3.0)}, assign=True),
    "conversion": lambda module: module.to(torch.float64),
    "assignment": assign,
    "new parameter": replace,
    "in place": lambda module: module.weight.detach().mul_(3),
}


def test_remembers() -> None:
    module = Doubling()
    for _ in range(3):
        module(torch.ones(3))
    assert module.computed == 1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_follows(change) -> None:
    module = Doubling()
    module(torch.ones(3))
    change(module)
    output = module(torch.ones(3))
    assert module.computed == 2
    torch.testing.assert_close(output, 2 * module.weight.detach(), rtol=0, atol=0)


def test_follows_two_assignments_of_one_address() -> None:
    module = Doubling()
    for factor in (2.0, 3.0, 4.0, 5.0):
        module.weight.data = torch.full((3,), factor)
        assert module(torch.ones(3))[0] == 2 * factor


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_is_independent(duplicate) -> None:
    module = Doubling()
    module(torch.ones(3))
    twin = duplicate(module)
    with torch.no_grad():
        twin.weight.fill_(9.0)
    assert twin(torch.ones(3))[0] == 18
    assert module(torch.ones(3))[0] == 2
    assert (module.computed, twin.computed) == (1, 2)


def test_usable_in_a_backward_pass_after_inference_mode() -> None:
    module = Doubling()
    with torch.inference_mode():
        module(torch.ones(3))
    features = torch.ones(3, requires_grad=True)
    module(features).sum().backward()
    assert features.grad is not None
    assert module.computed == 1


def test_sources_of_inference_mode_are_computed_anew() -> None:
    with torch.inference_mode():
        module = Doubling()
        module(torch.ones(3))
        module.weight.mul_(3)
        assert module(torch.ones(3))[0] == 6


def test_mapped_over_parameters() -> None:
    module = Doubling()
    weights = torch.arange(6.0).view(2, 3)
    outputs = torch.vmap(lambda weight: torch.func.functional_call(module, {"weight": weight}, torch.ones(3)))(weights)
    torch.testing.assert_close(outputs, 2 * weights)


def test_compiles() -> None:
    scale = torch.ones(3)
    folded = Folded(lambda tensor: (2 * tensor,))
    compiled = torch.compile(lambda features: features * folded([scale])[0], fullgraph=True, backend="eager")
    assert compiled(torch.ones(3))[0] == 2
    scale.add_(1)
    assert compiled(torch.ones(3))[0] == 4
