"""torch.compile of a training step: fused between the graphs, or unfused in one graph, with the same results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sa_layers.ops import extension
from tests.sampling import exhaustive, sample

from .step import Step, as_list, check_step, collect, expected_step, plain_torch, random_loss, take_step
from .subjects import BLOCKS, features_for, subject

Call = Callable[[nn.Module, Tensor], Any]
CASES = [("pairwise block", "eager"), ("patchwise block", "aot_eager"), ("pairwise network", "aot_eager")]
if exhaustive():
    CASES += [("pairwise block", "aot_eager"), ("patchwise network", "aot_eager")]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Listed(nn.Module):
    """A compiled module whose parameters have the names of the original."""

    def __init__(self, module: nn.Module, backend: str, **options: Any) -> None:
        super().__init__()
        self.module = module
        self.compiled = torch.compile(module, backend=backend, **options)

    def step(self, features: Tensor) -> Step:
        leaf = features.detach().clone().requires_grad_(features.requires_grad)
        outputs = self.compiled(leaf)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        random_loss(outputs)
        step = collect(self.module, outputs, leaf)
        self.module.zero_grad()
        return step


class Surrounded(nn.Module):
    """A module in a model whose other operations are compiled, and the function that calls the module."""

    def __init__(self, module: nn.Module, call: Call = lambda module, features: module(features)) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, features: Tensor) -> list[Tensor]:
        return [output.tanh() for output in as_list(self.call(self.module, features * 0.5))]


def fused_steps(outputs: list[Tensor]) -> int:
    """How many fused steps the outputs depend on."""
    nodes, found = [output.grad_fn for output in outputs], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in found:
            found.add(node)
            nodes += [following for following, _ in node.next_functions]
    return sum(type(node).__name__ == "StepFunctionBackward" for node in found)


def check_in_a_model(compiled: nn.Module, module: nn.Module, other: nn.Module, features: Tensor) -> int:
    """A compiled step of a module is that of an equal one without torch.compile; returns its number of fused steps."""
    steps, counts = [], []
    for model, part in ((compiled, module), (Surrounded(other), other)):
        leaf = features.detach().clone().requires_grad_(features.requires_grad)
        outputs = model(leaf)
        counts.append(fused_steps(outputs))
        random_loss(outputs)
        steps.append(collect(part, outputs, leaf))
        part.zero_grad()
    check_step(*steps)
    assert counts[0] == counts[1]
    return counts[0]


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
@pytest.mark.parametrize("name", ["pairwise layer", "patchwise block", "pairwise stage", "patchwise network"])
def test_takes_the_fused_path(name: str) -> None:
    """The rest of the model is compiled, and the module is fused at all sizes, as it is now."""
    module = subject(name)
    other = copy.deepcopy(module)
    compiled = torch.compile(Surrounded(module), backend="eager")
    assert check_in_a_model(compiled, module, other, features_for(name)) > 0
    if not name.endswith("block"):
        return
    for part in (module, other):
        part.eval()  # frozen norms
        part.norm1.weight.data.mul_(2)
    assert check_in_a_model(compiled, module, other, features_for(name, batch=2)) > 0
    for part in (module, other):
        part.attention.register_forward_hook(lambda layer, inputs, output: output * 2)
    check_in_a_model(compiled, module, other, features_for(name))


def recomputed(module: nn.Module, features: Tensor) -> Any:
    """Within torch's activation checkpointing."""
    return checkpoint(module, features, use_reentrant=False)


def twice(module: nn.Module, features: Tensor) -> Any:
    """In a loop."""
    for _ in range(2):
        features = module(features)
    return features


def frozen_and_not(module: nn.Module, features: Tensor) -> Any:
    """Compiled code that changes the mode."""
    first = module(features)
    module.eval()
    second = module(features)
    module.train()
    return first + second


def mixed_precision(module: nn.Module, features: Tensor) -> Any:
    """Under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return module(features)


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
@pytest.mark.parametrize("call", [recomputed, twice, frozen_and_not, mixed_precision])
def test_ways_to_call_it(call: Call) -> None:
    """Wherever compiled code calls the module."""
    module = subject("pairwise block").float()
    features = features_for("pairwise block").detach().float().requires_grad_()
    other = copy.deepcopy(module)
    steps = []
    for part in (module, other):
        model = Surrounded(part, call)
        outputs = (torch.compile(model, backend="eager") if part is module else model)(features)
        assert fused_steps(outputs) > 0
        random_loss(outputs)
        steps.append(collect(part, outputs))
    check_step(*steps, tolerance=1e-4)


@pytest.mark.skipif(not extension.is_available(), reason=str(extension.why_not()))
def test_errors_are_those_of_the_module() -> None:
    """Of a step that cannot be computed, and of a second derivative."""
    compiled = torch.compile(subject("pairwise block"), backend="eager")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        compiled(torch.ones(1, 32, 1, 1, dtype=torch.float64))
    features = features_for("pairwise block")
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(compiled(features).sum(), features, create_graph=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_steps_of_two_sizes(name: str, backend: str) -> None:
    """In one graph: two steps, the second with another batch size, then one with frozen norms, and an evaluation."""
    module = subject(name)
    other, compiled = copy.deepcopy(module), Listed(module, backend, fullgraph=True)
    for batch in (3, 2):
        features = features_for(name, batch=batch, seed=batch)
        with plain_torch():
            expected = take_step(other, features)
        other.zero_grad()
        check_step(compiled.step(features), expected)
    for part in (module, other):
        part.eval()
    features = features_for(name)
    expected = expected_step(other, features)
    check_step(compiled.step(features), expected)
    with torch.no_grad():
        features.requires_grad_(False)
        check_step(compiled.step(features), expected_step(other, features))


@BLOCKS
def test_frozen_parameters(name: str) -> None:
    """The same module, compiled, with fewer and fewer parameters that need a gradient."""
    module = subject(name)
    compiled = Listed(module, "aot_eager", fullgraph=True)
    features = features_for(name, wants_gradient=False)
    for key in ("norm1", "attention"):
        for parameter_name, parameter in module.named_parameters():
            if key in parameter_name:
                parameter.requires_grad_(False)
        expected = expected_step(module, features)
        check_step(compiled.step(features), expected)


def test_autocast() -> None:
    """Compiled mixed precision is as close to plain float32 as what is not compiled."""
    module = subject("pairwise block").float()
    features = features_for("pairwise block").detach().float().requires_grad_()
    exact = take_step(copy.deepcopy(module), features)
    with torch.autocast("cpu", torch.bfloat16):
        plain = take_step(copy.deepcopy(module), features)
        compiled = Listed(copy.deepcopy(module), "aot_eager", fullgraph=True).step(features)
    largest = max(float(gradient.norm()) for gradient in exact.gradients.values() if gradient is not None)
    for key, wanted in exact.gradients.items():
        ours, theirs = compiled.gradients[key], plain.gradients[key]
        assert ours is not None
        assert theirs is not None
        assert wanted is not None
        assert (ours - wanted).norm() <= 1.5 * (theirs - wanted).norm() + 0.05 * wanted.norm() + 0.01 * largest, key


def test_of_a_whole_step() -> None:
    """Loss, optimizer and module in one compiled function, for three steps."""
    results = []
    for compiled in (False, True):
        module = subject("pairwise block")
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)

        def loss(features: Tensor, module: nn.Module = module) -> Tensor:
            return module(features).square().mean()

        function = torch.compile(loss, backend="aot_eager") if compiled else loss
        losses = []
        for seed in range(3):
            optimizer.zero_grad()
            value = function(features_for("pairwise block", seed=seed, wants_gradient=False))
            value.backward()
            optimizer.step()
            losses.append(value.detach())
        results.append([*losses, *module.state_dict().values()])
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", sample(["pairwise block", "patchwise block"], 1))
def test_inductor(name: str) -> None:
    """With generated code."""
    module = subject(name)
    features = features_for(name)
    expected = expected_step(module, features)
    check_step(Listed(module, "inductor", fullgraph=True).step(features), expected)
