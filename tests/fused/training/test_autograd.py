"""What autograd promises of any operation: which gradients there are, how often, and what may change in between."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sa_layers.layers import SelfAttentionBlock
from sa_layers.ops import fused
from tests.sampling import sample

from .conftest import FUSED_TRAINING, assert_fused
from .step import (
    as_list,
    check_step,
    collect,
    difference,
    expected_step,
    like,
    plain_torch,
    random_gradients,
    random_loss,
    take_step,
)
from .subjects import EVERY_SUBJECT, LARGE, features_for, subject

Names = list[tuple[str, nn.Parameter]]


@LARGE
def test_one_gradient_at_a_time(name: str) -> None:
    """Of each parameter alone, without that of the input."""
    module, features = subject(name).requires_grad_(False), features_for(name, wants_gradient=False)
    for _, parameter in sample(module.named_parameters(), 10):
        parameter.requires_grad_()
        assert_fused(module, features)
        check_step(take_step(copy.deepcopy(module), features), expected_step(module, features))
        parameter.requires_grad_(False)
    features.requires_grad_()
    check_step(take_step(copy.deepcopy(module), features), expected_step(module, features))


@EVERY_SUBJECT
def test_all_but_one_gradient(name: str) -> None:
    module, features = subject(name), features_for(name)
    for _, parameter in sample(module.named_parameters(), 4):
        parameter.requires_grad_(False)
        check_step(take_step(copy.deepcopy(module), features), expected_step(module, features))
        parameter.requires_grad_()


@EVERY_SUBJECT
def test_nothing_needs_a_gradient(name: str) -> None:
    module, features = subject(name).requires_grad_(False), features_for(name, wants_gradient=False)
    expected = expected_step(module, features)
    assert not any(output.requires_grad for output in as_list(copy.deepcopy(module)(features)))
    check_step(take_step(module, features), expected)


@EVERY_SUBJECT
def test_no_gradient_of_the_image_unless_asked(name: str) -> None:
    module, features = subject(name), features_for(name, wants_gradient=False)
    step = take_step(module, features)
    assert step.gradients["input 0"] is None
    assert all(gradient is not None for key, gradient in step.gradients.items() if not key.startswith("input"))


@EVERY_SUBJECT
def test_inputs_of_autograd_grad(name: str) -> None:
    """Some of the leaves, in any order; the others receive nothing."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    chosen = dict(sample(module.named_parameters(), 4, seed=3))
    outputs = as_list(module(features))
    found = torch.autograd.grad(outputs, [*chosen.values(), features], random_gradients(outputs))
    for key, gradient in zip([*chosen, "input 0"], found, strict=True):
        wanted = expected.gradients[key]
        assert wanted is not None
        assert difference(gradient, wanted, 0.01) < 1e-9
    assert all(parameter.grad is None for parameter in module.parameters())


@EVERY_SUBJECT
def test_some_outputs(name: str) -> None:
    """A network's last output without a gradient, or one pixel's, or a gradient with strides of zero."""
    module, features = subject(name), features_for(name)

    def last(outputs: list[Tensor]) -> None:
        outputs[0].square().sum().backward()

    def pixel(outputs: list[Tensor]) -> None:
        outputs[-1].flatten(1)[1, -1].backward()

    def total(outputs: list[Tensor]) -> None:
        torch.autograd.backward([output.sum() for output in outputs])

    def transposed(outputs: list[Tensor]) -> None:
        gradients = [gradient.transpose(-1, 0).contiguous().transpose(-1, 0) for gradient in random_gradients(outputs)]
        torch.autograd.backward(outputs, gradients)

    for backward in (last, pixel, total, transposed):
        with plain_torch():
            expected = take_step(copy.deepcopy(module), features, backward)
        check_step(take_step(copy.deepcopy(module), features, backward), expected)


@EVERY_SUBJECT
def test_accumulation(name: str) -> None:
    """Gradients of three batches add up, also if graphs live at the same time and run backward in another order."""
    module, other = subject(name), subject(name)
    batches = [features_for(name, batch=1 + seed, seed=seed) for seed in range(3)]
    others = [like(features) for features in batches]
    with plain_torch():
        for features in others:
            random_loss(as_list(other(features)))
    outputs = [as_list(module(features)) for features in batches]
    for index in (1, 2, 0):
        random_loss(outputs[index])
    check_step(collect(module, [], *batches), collect(other, [], *others))


@EVERY_SUBJECT
def test_twice_through_a_retained_graph(name: str) -> None:
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    outputs = as_list(module(features))
    gradients = random_gradients(outputs)
    torch.autograd.backward(outputs, gradients, retain_graph=True)
    torch.autograd.backward(outputs, gradients)
    for gradient in (*(parameter.grad for parameter in module.parameters()), features.grad):
        assert gradient is not None
        gradient /= 2
    check_step(collect(module, outputs, features), expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.backward(outputs, gradients)


@EVERY_SUBJECT
def test_gradient_penalty(name: str) -> None:
    """A second derivative is right, or an error says that there is none."""
    module, features = subject(name), features_for(name)

    def penalty(part: nn.Module) -> list[Tensor]:
        leaf = like(features)
        outputs = as_list(part(leaf))
        loss = torch.stack([output.square().mean() for output in outputs]).sum()
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        (gradient.square().sum() + loss).backward()
        assert leaf.grad is not None
        return [leaf.grad, *(parameter.grad for parameter in part.parameters() if parameter.grad is not None)]

    with plain_torch():
        expected = penalty(copy.deepcopy(module))
    message = None
    try:
        found = penalty(copy.deepcopy(module))
    except (RuntimeError, NotImplementedError) as error:
        message = str(error)
        with fused(False):
            found = penalty(copy.deepcopy(module))
    assert message is None or (FUSED_TRAINING and ("derivative" in message or "differentiable" in message)), message
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for gradient, wanted in zip(found, expected, strict=True):
        assert difference(gradient, wanted, largest / 100) < 1e-8


@EVERY_SUBJECT
def test_hooks_on_tensors(name: str) -> None:
    """Hooks of outputs and parameters, once each, with the gradients that they see in plain torch."""
    module, features = subject(name), features_for(name)

    def watched(part: nn.Module) -> tuple[list[str], dict[str, Tensor]]:
        order: list[str] = []
        seen: dict[str, Tensor] = {}

        def hook(key: str) -> Any:
            def record(gradient: Tensor) -> None:
                order.append(key)
                seen[key] = gradient.detach().clone()

            return record

        for key, parameter in part.named_parameters():
            parameter.register_hook(hook(key))
            parameter.register_post_accumulate_grad_hook(lambda leaf, key=key: order.append(f"accumulated {key}"))
        leaf = like(features)
        outputs = as_list(part(2 * leaf))
        for index, output in enumerate(outputs):
            output.register_hook(hook(f"output {index}"))
            output.retain_grad()
        torch.autograd.backward([3 * output for output in outputs], random_gradients(outputs))
        seen |= {f"retained {index}": output.grad for index, output in enumerate(outputs) if output.grad is not None}
        return order, seen

    with plain_torch():
        order, expected = watched(copy.deepcopy(module))
    found_order, found = watched(copy.deepcopy(module))
    assert sorted(found_order) == sorted(order)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in expected.items():
        assert difference(found[key], gradient, largest / 100) < 1e-9, key


@EVERY_SUBJECT
def test_saved_tensors_hooks(name: str) -> None:
    """Every tensor that is kept for the backward pass goes through them, and may come back as a copy."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor.detach().clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor.clone()):
        check_step(take_step(copy.deepcopy(module), features), expected)
    assert kept
    with torch.autograd.graph.save_on_cpu():
        check_step(take_step(module, features), expected)


def count_saved(module: nn.Module, features: Tensor) -> int:
    """The numbers that a forward pass keeps for the backward pass, each storage once."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive += as_list(module(features))
    return sum(kept.values())


@pytest.mark.parametrize("attention", ["pairwise", "patchwise"])
def test_nothing_of_all_footprints_is_kept(attention: str) -> None:
    """A block with 7x7 footprints keeps less than a third, and no more than a ResNet's bottleneck would twice."""
    torch.manual_seed(0)
    block, features = SelfAttentionBlock(256, 7, attention), torch.randn(2, 256, 14, 14, requires_grad=True)
    assert_fused(block, features)
    kept = count_saved(block, features)
    with fused(False):
        unfused = count_saved(block, features)
    assert not FUSED_TRAINING or kept < min(unfused / 3, 4 * features.numel() * 4), (kept, unfused)


@EVERY_SUBJECT
def test_leaf_of_another_graph(name: str) -> None:
    """An input that is computed by other modules and used by others, too."""
    module, features = subject(name), features_for(name)
    convolution = nn.Conv2d(features.shape[1], features.shape[1], 3, padding=1).double()
    results = []
    for context in (plain_torch, torch.enable_grad):
        part, leaf, other = copy.deepcopy(module), like(features), copy.deepcopy(convolution)
        with context():
            middle = other(leaf)
            outputs = [*as_list(part(middle)), middle.square(), *as_list(part(middle.flip(0)))]
            random_loss(outputs)
        results.append(collect(nn.ModuleList([part, other]), outputs, leaf))
    check_step(results[1], results[0])
