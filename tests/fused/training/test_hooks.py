"""Modules that somebody watches or has changed are called in a training step, as often as without the fused path."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, prune

from sa_layers.layers import SelfAttentionBlock
from sa_layers.layers.self_attention import SelfAttention
from sa_layers.models.self_attention_stage import SelfAttentionStage
from tests.sampling import sample

from .conftest import assert_fused, assert_unfused
from .step import as_list, check_step, expected_step, plain_torch, take_step
from .subjects import EVERY_SUBJECT, LARGE, features_for, subject

Seen = list[tuple[str, tuple[Tensor, ...]]]
Register = Callable[[nn.Module, Callable[..., None]], Any]


def numbers(*values: Any) -> tuple[Tensor, ...]:
    """Copies of the tensors among a hook's arguments."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value.detach().clone())
        elif isinstance(value, tuple | list):
            found += numbers(*value)
    return tuple(found)


HOOKS: dict[str, Register] = {
    "forward": lambda module, record: module.register_forward_hook(lambda _, x, y: record(x, y)),
    "forward pre": lambda module, record: module.register_forward_pre_hook(lambda _, x: record(x)),
    "full backward": lambda module, record: module.register_full_backward_hook(lambda _, gx, gy: record(gx, gy)),
    "full backward pre": lambda module, record: module.register_full_backward_pre_hook(lambda _, gy: record(gy)),
}


def watch(module: nn.Module, features: Tensor, kind: str, key: str) -> tuple[Any, Seen]:
    """A step of a copy with a hook on one submodule, and what the hook saw."""
    module, seen = copy.deepcopy(module), Seen()
    HOOKS[kind](module.get_submodule(key), lambda *values: seen.append((key, numbers(*values))))
    return take_step(module, features), seen


@pytest.mark.parametrize("kind", HOOKS)
@EVERY_SUBJECT
def test_every_module_can_be_watched(name: str, kind: str) -> None:
    """The module itself, its parts, and the parts of those, one at a time."""
    module, features = subject(name), features_for(name)
    take_step(copy.deepcopy(module), features)
    keys = [key for key, part in module.named_modules() if not isinstance(part, nn.ModuleList)]
    for key in sample(keys, 4, seed=len(kind) + len(name)):
        with plain_torch():
            expected, wanted = watch(module, features, kind, key)
        step, seen = watch(module, features, kind, key)
        check_step(step, expected)
        assert len(seen) == len(wanted), key
        for (_, ours), (_, theirs) in zip(seen, wanted, strict=True):
            assert len(ours) == len(theirs)
            for result, value in zip(ours, theirs, strict=True):
                torch.testing.assert_close(result, value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", ["pairwise stage", "pairwise network"])
def test_poolings_can_be_watched(name: str, kind: str) -> None:
    """A fused path pools beside the transition, or before the stem is done."""
    module, features = subject(name), features_for(name)
    for key in [key for key, part in module.named_modules() if isinstance(part, nn.MaxPool2d)]:
        with plain_torch():
            expected, wanted = watch(module, features, kind, key)
        step, seen = watch(module, features, kind, key)
        check_step(step, expected)
        assert len(seen) == len(wanted) == 1


@LARGE
def test_hooks_that_are_removed(name: str) -> None:
    """The fused path is left while a hook is there, and taken again afterwards.

    Stages, blocks and poolings are called by a fused path, too.
    """
    module, features = subject(name), features_for(name)
    assert_fused(module, features)
    for part in list(module.modules())[1:]:
        if isinstance(part, nn.ModuleList | nn.MaxPool2d | SelfAttentionBlock | SelfAttentionStage):
            continue
        handle = part.register_forward_hook(lambda *_: None)
        assert_unfused(module, features)
        handle.remove()
        handle = part.register_full_backward_hook(lambda *_: None)
        assert_unfused(module, features)
        handle.remove()
        assert_fused(module, features)


def doubling(module: nn.Module, key: str) -> None:
    module.get_submodule(key).register_forward_hook(lambda _, x, y: 2 * y)


def doubling_gradients(module: nn.Module, key: str) -> None:
    module.get_submodule(key).register_full_backward_hook(
        lambda _, gx, gy: tuple(g if g is None else 2 * g for g in gx)
    )


def other_forward(module: nn.Module, key: str) -> None:
    part: Any = module.get_submodule(key)
    original = part.forward
    part.forward = types.MethodType(lambda self, features: original(features).sin(), part)


CHANGES = {"forward hook": doubling, "backward hook": doubling_gradients, "forward": other_forward}


@pytest.mark.parametrize("change", CHANGES)
@LARGE
def test_changes_have_an_effect(name: str, change: str) -> None:
    """A hook that returns something else, or a method of the instance, of each leaf module."""
    module, features = subject(name), features_for(name)
    plain = expected_step(module, features)
    keys = [key for key, part in module.named_modules() if not list(part.children()) and "position" not in key]
    for key in sample(keys, 4, seed=len(change) + len(name)):
        changed = copy.deepcopy(module)
        take_step(changed, features)  # what is kept between calls must not hide the change
        changed = copy.deepcopy(changed)
        CHANGES[change](changed, key)
        other = copy.deepcopy(module)
        other.load_state_dict(changed.state_dict())
        CHANGES[change](other, key)
        with plain_torch():
            expected = take_step(other, features)
        check_step(take_step(changed, features), expected)
        with pytest.raises(AssertionError):
            check_step(expected, plain)


GLOBAL: dict[str, Callable[..., Any]] = {
    "forward": torch_module.register_module_forward_hook,
    "forward pre": torch_module.register_module_forward_pre_hook,
    "full backward": torch_module.register_module_full_backward_hook,
    "full backward pre": torch_module.register_module_full_backward_pre_hook,
}


@contextmanager
def global_hook(kind: str, seen: list[str]) -> Iterator[None]:
    handle = GLOBAL[kind](lambda module, *_: seen.append(type(module).__name__))
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", GLOBAL)
@LARGE
def test_hooks_of_all_modules(name: str, kind: str) -> None:
    """As profilers and summaries register them."""
    module, features, calls = subject(name), features_for(name), []
    for context in (plain_torch, torch.enable_grad):
        seen: list[str] = []
        with context(), global_hook(kind, seen):
            step = take_step(copy.deepcopy(module), features)
        calls.append((sorted(seen), step))
    assert calls[0][0] == calls[1][0]
    assert "BatchNorm2d" in calls[0][0]
    check_step(calls[1][1], calls[0][1])


class Scaled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 1.5


def parametrized(module: nn.Module, key: str) -> None:
    parametrize.register_parametrization(module.get_submodule(key), "weight", Scaled())


def orthogonal(module: nn.Module, key: str) -> None:
    parametrizations.spectral_norm(module.get_submodule(key))


def weight_norm(module: nn.Module, key: str) -> None:
    parametrizations.weight_norm(module.get_submodule(key))


def pruned(module: nn.Module, key: str) -> None:
    prune.random_unstructured(module.get_submodule(key), "weight", 0.5)


REPARAMETRIZED = {"own": parametrized, "spectral norm": orthogonal, "weight norm": weight_norm, "pruned": pruned}


@pytest.mark.parametrize("change", REPARAMETRIZED)
@LARGE
def test_parametrizations(name: str, change: str) -> None:
    """A weight that is computed from other parameters receives no gradient itself; they do."""
    module, features = subject(name), features_for(name)
    take_step(copy.deepcopy(module), features)
    kinds = (nn.Conv2d, nn.BatchNorm2d) if change == "own" else (nn.Conv2d,)
    keys = [key for key, part in module.named_modules() if isinstance(part, kinds)]
    for key in sample(keys, 3, seed=len(change) + len(name)):
        torch.manual_seed(0)
        changed = copy.deepcopy(module)
        REPARAMETRIZED[change](changed, key)
        state = {key: value.clone() for key, value in changed.state_dict().items()}
        steps = []
        for context in (plain_torch, torch.enable_grad):
            torch.manual_seed(1)
            changed.load_state_dict(state)
            changed.zero_grad()
            with context():
                steps.append(take_step(changed, features))
        check_step(steps[1], steps[0])


@LARGE
def test_parametrizations_that_are_removed(name: str) -> None:
    module, features = subject(name), features_for(name)
    key = next(key for key, part in module.named_modules() if isinstance(part, nn.Conv2d))
    parametrized(module, key)
    take_step(copy.deepcopy(module), features)
    parametrize.remove_parametrizations(module.get_submodule(key), "weight")
    module.zero_grad()
    expected = expected_step(module, features)
    check_step(take_step(module, features), expected)


@pytest.mark.parametrize("method", ["attend", "transform", "relate", "map_relation", "attend_unfused"])
@LARGE
def test_overridden_methods(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an instance of the attention: it is called, and its result is used."""
    module, features = subject(name), features_for(name)
    take_step(copy.deepcopy(module), features)
    calls: list[str] = []
    attention: Any = next(part for part in module.modules() if isinstance(part, SelfAttention))
    original = getattr(attention, method)

    def replaced(*arguments: Tensor) -> Any:
        calls.append(method)
        result = original(*arguments)
        return tuple(2 * part for part in result) if isinstance(result, tuple) else 2 * result

    monkeypatch.setattr(attention, method, replaced)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    assert_unfused(module, features)
    steps = []
    for context in (plain_torch, torch.enable_grad):
        module.load_state_dict(state)
        module.zero_grad()
        with context():
            steps.append(take_step(module, features))
    check_step(steps[1], steps[0])
    assert len(calls) == 2


def test_watched_blocks_leave_the_others_fused() -> None:
    """A hook on one block is called; the rest of the network computes the same."""
    module, features = subject("pairwise network"), features_for("pairwise network")
    expected = expected_step(module, features)
    shapes = []
    module.get_submodule("stages.1.blocks.0").register_forward_hook(lambda _, x, y: shapes.append(y.shape))
    assert_fused(module.get_submodule("stages.0"), torch.zeros(3, 16, 10, 13, dtype=torch.float64))
    check_step(take_step(module, features), expected)
    assert shapes == [(3, 32, 2, 3)]


def test_features_of_hooks_have_gradients() -> None:
    """As GradCAM takes them: the output of a block, kept by a hook, receives its gradient."""
    gradients = []
    for context in (plain_torch, torch.enable_grad):
        module, features = subject("classifier"), features_for("classifier")
        kept: list[Tensor] = []
        module.get_submodule("network.stages.1.blocks.1").register_forward_hook(
            lambda _, x, y, kept=kept: kept.append(y)
        )
        with context():
            outputs = as_list(module(features))
            (gradient,) = torch.autograd.grad(outputs[0][:, 2].sum(), kept[-1])
        gradients.append(gradient)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)
