"""Mixed precision: autocast to both half precisions with a GradScaler, and modules in bfloat16."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from .conftest import assert_fused
from .step import Step, as_list, check_step, collect, expected_step, like, plain_torch, random_loss, take_step
from .subjects import EVERY_SUBJECT, LARGE, features_for, subject

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def take_step_under_autocast(module: nn.Module, features: Tensor, dtype: torch.dtype) -> Step:
    """The forward pass under autocast, the backward pass outside, as torch's documentation asks for."""
    leaf = like(features)
    with torch.autocast("cpu", dtype):
        outputs = as_list(module(leaf))
    random_loss(outputs)
    return collect(module, outputs, leaf)


def distance(step: Step, exact: Step) -> dict[str, float]:
    """The error of outputs, of the whole gradient and of buffers, each as one vector, relative to its length."""
    found = {}
    for kind, ours, theirs in zip(Step._fields, step, exact, strict=True):
        error = scale = 0.0
        for key, wanted in theirs.items():
            result = ours[key]
            if wanted is None or result is None:
                assert result is wanted, key
                continue
            assert result.shape == wanted.shape
            if kind != "outputs" and wanted.is_floating_point():
                assert result.dtype is torch.float32, f"{kind} {key} is {result.dtype}"
            assert result.isfinite().all(), key
            error += float((result.double() - wanted.double()).square().sum())
            scale += float(wanted.double().square().sum())
        found[kind] = math.sqrt(error / scale)
    return found


@EVERY_SUBJECT
@HALVES
def test_errors(name: str, dtype: torch.dtype) -> None:
    """Against float64, on average no larger than those of plain torch's operators under autocast."""
    with torch.autocast("cpu", dtype):
        assert_fused(subject(name).float(), features_for(name).float())
    bounds: list[dict[str, float]] = []
    found: list[dict[str, float]] = []
    for seed in range(2):
        module, features = subject(name), features_for(name, seed=seed)
        exact = expected_step(module, features)
        module, features = module.float(), like(features, torch.float32)
        with plain_torch():
            plain = take_step_under_autocast(copy.deepcopy(module), features, dtype)
        step = take_step_under_autocast(module, features, dtype)
        for key, output in plain.outputs.items():
            assert step.outputs[key].dtype is output.dtype
        bounds.append(distance(plain, exact))
        found.append(distance(step, exact))
    check_averages(found, bounds)


def check_averages(found: list[dict[str, float]], bounds: list[dict[str, float]]) -> None:
    for kind in found[0]:
        ours, theirs = (sum(errors[kind] for errors in several) / len(several) for several in (found, bounds))
        factor = 2.5 if kind == "gradients" else 1.3  # masks that flip make the errors of gradients vary
        assert ours <= factor * theirs + 0.01, f"{kind}: {ours}, and {theirs} in plain torch"


@LARGE
def test_other_uses_of_autocast(name: str) -> None:
    """Backward inside the block, blocks that are switched off inside, and float64, which autocast leaves alone."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
        check_step(take_step(copy.deepcopy(module), features), expected)
    bounds, found = [], []
    for seed in range(2):
        module, features = subject(name), features_for(name, seed=seed)
        expected = expected_step(module, features)
        module, features = module.float(), like(features, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            with plain_torch():
                bounds.append(distance(take_step(copy.deepcopy(module), features), expected))
            found.append(distance(take_step(module, features), expected))
    check_averages(found, bounds)


@LARGE
@HALVES
def test_half_precision_input(name: str, dtype: torch.dtype) -> None:
    """Under autocast, a map in half precision has a gradient in half precision, as in plain torch."""
    module, features = subject(name).float(), features_for(name).detach().to(dtype).requires_grad_()
    steps = []
    for context in (plain_torch, torch.enable_grad):
        with context():
            steps.append(take_step_under_autocast(copy.deepcopy(module), features, dtype))
    for ours, theirs in zip(steps[1].outputs.values(), steps[0].outputs.values(), strict=True):
        assert ours.dtype is theirs.dtype
    gradient, wanted = (step.gradients["input 0"] for step in steps)
    assert gradient is not None
    assert wanted is not None
    assert gradient.dtype is wanted.dtype
    error = (gradient.double() - wanted.double()).norm() / wanted.double().norm()
    assert error < 0.3


@LARGE
def test_bfloat16_modules(name: str) -> None:
    """Parameters and gradients in bfloat16; the norms' as well."""
    module, features = subject(name), features_for(name)
    exact = expected_step(module, features)
    module, features = module.bfloat16(), like(features, torch.bfloat16)
    errors = []
    for context in (plain_torch, torch.enable_grad):
        with context():
            step = take_step(copy.deepcopy(module), features)
        for gradient in step.gradients.values():
            assert gradient is not None
            assert gradient.dtype is torch.bfloat16
        difference = [step.gradients[key] - wanted for key, wanted in exact.gradients.items() if wanted is not None]
        errors.append(float(torch.cat([part.flatten() for part in difference]).norm()))
    scale = float(torch.cat([part.flatten() for part in exact.gradients.values() if part is not None]).norm())
    assert errors[1] <= 1.3 * errors[0] + 0.02 * scale, (errors, scale)


@LARGE
def test_gradient_scaler(name: str) -> None:
    """Two steps in float16; an infinite gradient is found, and the step is skipped."""
    results = []
    for context in (plain_torch, torch.enable_grad):
        module, features = subject(name).float(), features_for(name).detach().float()
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1)
        scales = []
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            with context(), torch.autocast("cpu", torch.float16):
                loss = torch.stack([output.float().square().mean() for output in as_list(module(features))]).sum()
            before = [parameter.detach().clone() for parameter in module.parameters()]
            scaler.scale(loss * factor).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(module.parameters(), 10.0)
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
            skipped = all(map(torch.equal, before, module.parameters()))
            assert skipped is math.isinf(factor)
        assert scales == [512.0, 256.0, 512.0]
        results.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    start = torch.cat([parameter.detach().flatten() for parameter in subject(name).float().parameters()])
    moved, error = (results[0] - start).norm(), (results[1] - results[0]).norm()
    assert error < 0.2 * moved
