"""Folded values are computed again after every change of their module."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.fused import FusedModule
from sa_layers.fused.folding import Folding


class Doubling(nn.Module):
    """Twice a parameter of a module below, plus a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 3, bias=False)
        nn.init.ones_(self.inner.weight)
        self.register_buffer("summand", torch.zeros(3))
        self.factor = 2.0
        self.note: Any = torch.zeros(2)
        self.computed = [0]
        self.folding = Folding(self.fold)

    def fold(self) -> Tensor:
        self.computed[0] += 1
        return self.factor * self.inner.weight.flatten() + self.summand

    def forward(self, features: Tensor) -> Tensor:
        return features * self.folding()


def step(module: Doubling) -> None:
    module.inner.weight.grad = torch.full((3, 1), 0.5)
    torch.optim.SGD(module.parameters(), lr=1.0).step()


def assign(module: Doubling) -> None:
    module.inner.weight.data = torch.full((3, 1), 7.0)


def replace_parameter(module: Doubling) -> None:
    module.inner.weight = nn.Parameter(torch.full((3, 1), 5.0))


def replace_module(module: Doubling) -> None:
    module.inner = nn.Linear(1, 3)


def move_aside(module: Doubling) -> None:
    """As parametrisations do: the registered parameters are fewer."""
    module.inner.weight = nn.Parameter(torch.ones(3, 1))
    module.inner.register_parameter("bias", nn.Parameter(torch.ones(1)))


state = {"inner.weight": torch.arange(3.0).view(3, 1), "summand": torch.ones(3)}
CHANGES: dict[str, Callable[[Doubling], Any]] = {
    "optimizer": step,
    "state dict": lambda module: module.load_state_dict(state),
    "assigned state dict": lambda module: module.load_state_dict(state, assign=True),
    "conversion": lambda module: module.to(torch.float64),
    "assignment": assign,
    "new parameter": replace_parameter,
    "new module": replace_module,
    "another parameter": move_aside,
    "in place": lambda module: module.inner.weight.detach().mul_(3),
    "buffer": lambda module: module.summand.add_(1),
    "attribute": lambda module: setattr(module, "factor", 3.0),
    "attribute below": lambda module: setattr(module.inner, "forward", lambda features: features),
    "attribute that compares by element": lambda module: setattr(module, "note", torch.zeros(3)),
    "mode": lambda module: module.inner.eval(),
    "hook": lambda module: module.inner.register_forward_hook(lambda *_: None),
    "class": lambda module: setattr(module.inner, "__class__", nn.Bilinear),
}


def test_remembers() -> None:
    module = Doubling()
    for _ in range(3):
        module(torch.ones(3))
    assert module.computed == [1]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_follows(change: Callable[[Doubling], Any]) -> None:
    module = Doubling()
    module(torch.ones(3))
    change(module)
    for _ in range(2):
        output = module(torch.ones(3))
    assert module.computed == [2]
    expected = module.factor * module.inner.weight.detach().flatten() + module.summand
    torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_follows_two_assignments_of_one_address() -> None:
    module = Doubling()
    for factor in (2.0, 3.0, 4.0, 5.0):
        module.inner.weight.data = torch.full((3, 1), factor)
        assert module(torch.ones(3))[0] == 2 * factor


def test_follows_a_transposition_in_place() -> None:
    """Neither the memory nor its version changes."""
    module = Doubling()
    module.inner = nn.Linear(2, 2, bias=False)
    module.summand = torch.zeros(4)
    module(torch.ones(4))
    module.inner.weight.data = module.inner.weight.data.t()
    assert torch.equal(module(torch.ones(4)), 2 * module.inner.weight.detach().flatten())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_is_independent(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    module = Doubling()
    module(torch.ones(3))
    twin = duplicate(module)
    with torch.no_grad():
        twin.inner.weight.fill_(9.0)
    assert twin(torch.ones(3))[0] == 18
    assert module(torch.ones(3))[0] == 2
    assert (module.computed, twin.computed) == ([1], [2])


class Halving(FusedModule[Tensor]):
    """Half a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def why_not_eligible(self) -> None:
        return None

    def fold(self) -> Tensor:
        return self.weight / 2


@torch.no_grad()
def test_a_replica_folds_its_own_parameters() -> None:
    """As DataParallel makes them: the attributes of the original, and parameters of its own."""
    module = Halving()
    assert module.folded(torch.ones(1))[0] == 0.5
    replica = module._replicate_for_data_parallel()
    replica.weight = nn.Parameter(torch.full((3,), 6.0))
    assert replica.folded(torch.ones(1))[0] == 3
    assert module.folded(torch.ones(1))[0] == 0.5


@torch.no_grad()
def test_a_move_lets_go_of_the_old_memory() -> None:
    module = Halving()
    module.folded(torch.ones(1))
    old = weakref.ref(module.weight.untyped_storage())
    kept = module._folding
    module.to(torch.float64)
    assert module._folding is not kept
    del kept
    gc.collect()
    assert old() is None
    assert module.folded(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


def test_usable_in_a_backward_pass_after_inference_mode() -> None:
    module = Doubling()
    with torch.inference_mode():
        module(torch.ones(3))
    features = torch.ones(3, requires_grad=True)
    module(features).sum().backward()
    assert features.grad is not None
    assert module.computed == [1]


def test_parameters_of_inference_mode_are_folded_anew() -> None:
    with torch.inference_mode():
        module = Doubling()
        module(torch.ones(3))
        module.inner.weight.mul_(3)
        assert module(torch.ones(3))[0] == 6


def test_mapped_over_parameters() -> None:
    module = Doubling()
    weights = torch.arange(6.0).view(2, 3, 1)
    outputs = torch.vmap(
        lambda weight: torch.func.functional_call(module, {"inner.weight": weight}, torch.ones(3)), randomness="error"
    )(weights)
    torch.testing.assert_close(outputs, 2 * weights.flatten(1))


def test_scripted_modules_are_folded_anew() -> None:
    module = Doubling()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which users still have
        module.other = torch.jit.script(nn.Linear(1, 1))
    module(torch.ones(3))
    module(torch.ones(3))
    assert module.computed == [2]


def test_compiles() -> None:
    module = Doubling().requires_grad_(False)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert compiled(torch.ones(3))[0] == 2
    module.summand.add_(1)
    assert compiled(torch.ones(3))[0] == 3
