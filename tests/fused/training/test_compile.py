"""torch.compile of a training step: the same results, whether or not the fused path is part of the graphs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.sampling import exhaustive, sample

from .step import Step, check_step, collect, expected_step, plain_torch, random_loss, take_step
from .subjects import BLOCKS, features_for, subject

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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_steps_of_two_sizes(name: str, backend: str) -> None:
    """Two steps, the second with another batch size, then one with frozen norms, and an evaluation."""
    module = subject(name)
    other, compiled = copy.deepcopy(module), Listed(module, backend)
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
    compiled = Listed(module, "aot_eager")
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
        compiled = Listed(copy.deepcopy(module), "aot_eager").step(features)
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
    check_step(Listed(module, "inductor").step(features), expected)
