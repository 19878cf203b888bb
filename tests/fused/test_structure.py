"""What :class:`Structure` sees of a module, and how long plans are kept."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sa_layers.fused import FusedModule
from sa_layers.fused.evaluation.parameters import Parameters
from sa_layers.fused.structure import Structure


class Doubling(FusedModule[nn.Parameter]):
    """Twice a parameter, as its plan has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.norm = nn.BatchNorm2d(3)
        self.scalar = nn.Parameter(torch.ones(1))
        self.note: Any = torch.zeros(2)
        self.number: Any = torch.zeros(1)
        self.array: Any = np.zeros(2)
        self.numbers: Any = [1, 2]
        self.inner = nn.Sequential(nn.Linear(1, 3), nn.ReLU())
        self.empty = nn.ModuleList()

    def why_not_eligible(self) -> None:
        return None

    def plan(self, parameters: Parameters) -> nn.Parameter:
        return self.weight

    def forward(self, features: Tensor) -> Tensor:
        planned = self.planned(features)
        return features * 2 * (self.weight if planned is None else planned[0])


def replace_by_an_equal_one(module: Doubling) -> None:
    module.scalar = nn.Parameter(module.scalar.detach().clone())


SEEN: dict[str, Callable[[Doubling], Any]] = {
    "parameter": lambda module: setattr(module, "weight", nn.Parameter(torch.ones(3))),
    "equal parameter of one element": replace_by_an_equal_one,
    "equal tensor of one element": lambda module: setattr(module, "number", torch.zeros(1)),
    "parameter that is missing": lambda module: setattr(module, "scalar", None),
    "parameter more": lambda module: module.inner[0].register_parameter("more", None),
    "buffer": lambda module: setattr(module.norm, "running_mean", torch.zeros(3)),
    "module": lambda module: setattr(module, "inner", nn.Sequential(nn.Linear(1, 3))),
    "module in an empty list": lambda module: module.empty.append(nn.ReLU()),
    "order of modules": lambda module: module.inner._modules.__setitem__("0", module.inner._modules.pop("0")),
    "class": lambda module: setattr(module.inner[0], "__class__", nn.Bilinear),
    "own class": lambda module: setattr(module, "__class__", type("Own", (Doubling,), {})),
    "mode": lambda module: module.inner.eval(),
    "attribute": lambda module: setattr(module.norm, "eps", 0.1),
    "tensor that is an attribute": lambda module: setattr(module, "note", torch.zeros(2)),
    "array": lambda module: setattr(module, "array", np.zeros(3)),
    "attribute more": lambda module: setattr(module.inner[0], "forward", lambda features: features),
    "list in place": lambda module: module.numbers.append(3),
    "hook": lambda module: module.inner.register_forward_hook(lambda *_: None),
    "pre-hook": lambda module: module.inner[1].register_forward_pre_hook(lambda *_: None),
    "dtype of a parameter": lambda module: setattr(
        module.inner[0].weight, "data", module.inner[0].weight.data.double()
    ),
    "shape of a parameter": lambda module: setattr(module.inner[0].weight, "data", module.inner[0].weight.data[:2]),
    "conversion of a module without buffers": lambda module: module.inner.double(),
}
UNSEEN: dict[str, Callable[[Doubling], Any]] = {
    "nothing": lambda module: None,
    "in place": lambda module: module.weight.data.fill_(2),
    "other memory": lambda module: setattr(module.weight, "data", torch.zeros(3)),
    "gradient": lambda module: setattr(module.weight, "grad", torch.zeros(3)),
    "requires_grad": lambda module: module.requires_grad_(False),
    "state dict": lambda module: module.load_state_dict(module.state_dict()),
    "full backward hook": lambda module: module.inner[0].weight.register_hook(lambda gradient: gradient),
    "equal number": lambda module: setattr(module.norm, "eps", float("1e-5")),
}


@pytest.mark.parametrize("change", SEEN.values(), ids=SEEN)
def test_sees(change: Callable[[Doubling], Any]) -> None:
    module = Doubling()
    structure = Structure(module)
    assert structure.holds(module)
    change(module)
    assert not structure.holds(module)
    assert Structure(module).holds(module)


@pytest.mark.parametrize("change", UNSEEN.values(), ids=UNSEEN)
def test_does_not_see_values(change: Callable[[Doubling], Any]) -> None:
    module = Doubling()
    structure = Structure(module)
    change(module)
    assert structure.holds(module)


def test_is_that_of_one_module() -> None:
    module = Doubling()
    assert not Structure(module).holds(copy.copy(module))
    assert not Structure(module).holds(copy.deepcopy(module))


@torch.no_grad()
def test_a_plan_is_made_once() -> None:
    module = Doubling()
    with mock.patch.object(Doubling, "plan", autospec=True, side_effect=Doubling.plan) as plan:
        for value in (1.0, 2.0, 3.0):
            module.weight.fill_(value)
            assert module(torch.ones(3))[0] == 2 * value
        assert plan.call_count == 1
        module.weight = nn.Parameter(torch.ones(3))
        module(torch.ones(3))
        assert plan.call_count == 2


def saved(module: nn.Module) -> nn.Module:
    """As torch.save writes and torch.load reads it."""
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda module: pickle.loads(pickle.dumps(module)),
    saved,
    lambda module: module._replicate_for_data_parallel(),
]


@pytest.mark.parametrize("duplicate", COPIES)
@torch.no_grad()
def test_copies_have_plans_of_their_own(duplicate: Callable[[Any], Any]) -> None:
    module = Doubling()
    module(torch.ones(3))
    names = set(vars(module))
    twin = duplicate(module)
    twin.weight = nn.Parameter(torch.full((3,), 9.0)) if "weight" in twin._parameters else torch.full((3,), 9.0)
    for _ in range(2):
        assert twin(torch.ones(3))[0] == 18
        if duplicate is not copy.copy:  # which shares the dictionary of parameters
            assert module(torch.ones(3))[0] == 2
    assert set(vars(module)) == names


@torch.no_grad()
def test_a_move_frees_the_old_memory() -> None:
    """Except that of buffers, which ``to`` replaces: they are freed by the next evaluation."""
    module = Doubling()
    module(torch.ones(3))
    memory = [weakref.ref(tensor.untyped_storage()) for tensor in (module.weight, module.norm.running_mean)]
    module.to(torch.float64)
    assert memory[0]() is None
    assert module(torch.ones(3, dtype=torch.float64)).dtype == torch.float64
    assert memory[1]() is None


@torch.no_grad()
def test_a_module_is_freed_at_once() -> None:
    """Without waiting for the garbage collector, as large models on GPUs must be."""
    module = Doubling()
    module(torch.ones(3))
    memory = [weakref.ref(tensor.untyped_storage()) for tensor in (*module.parameters(), *module.buffers())]
    gc.collect()
    gc.disable()
    try:
        del module
        assert [ref() for ref in memory] == [None] * len(memory)
    finally:
        gc.enable()


def test_usable_in_a_backward_pass_after_inference_mode() -> None:
    module = Doubling().requires_grad_(False)
    with torch.inference_mode():
        module(torch.ones(3))
    features = torch.ones(3, requires_grad=True)
    module(features).sum().backward()
    assert features.grad is not None


def test_mapped_over_parameters() -> None:
    module = Doubling()
    weights = torch.arange(6.0).view(2, 3)
    outputs = torch.vmap(lambda weight: torch.func.functional_call(module, {"weight": weight}, torch.ones(3)))(weights)
    torch.testing.assert_close(outputs, 2 * weights)
