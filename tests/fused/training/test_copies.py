"""Copies of modules, other parameters for a call, and everything that replaces tensors between steps."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from .conftest import assert_fused
from .step import (
    Step,
    as_list,
    check_step,
    collect,
    expected_step,
    like,
    plain_torch,
    random_gradients,
    random_loss,
    take_step,
)
from .subjects import EVERY_SUBJECT, LARGE, features_for, subject


def deep(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module)


def pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make", [deep, pickled, saved])
@EVERY_SUBJECT
def test_copies_after_a_step(name: str, make: Callable[[nn.Module], nn.Module]) -> None:
    """A copy trains on its own, and leaves the original alone."""
    module, features = subject(name), features_for(name)
    take_step(module, features)
    module.zero_grad()
    other = make(module)
    expected = expected_step(module, features)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert_fused(other, features)
    check_step(take_step(other, features), expected)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    check_step(take_step(module, features), expected)


@torch.no_grad()
def changed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Other values for a state."""
    generator = torch.Generator().manual_seed(3)
    return {
        key: value * (1 + 0.3 * torch.rand(value.shape, generator=generator))
        if value.is_floating_point()
        else value + 2
        for key, value in state.items()
    }


def load(module: nn.Module) -> None:
    module.load_state_dict(changed(module.state_dict()))


def assign(module: nn.Module) -> None:
    module.load_state_dict(changed(module.state_dict()), assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_()


def set_data(module: nn.Module) -> None:
    state = changed(module.state_dict())
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        tensor.data = state[key]


def optimise(module: nn.Module) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    random_loss(as_list(module(next(iter(FEATURES)))))
    optimizer.step()
    optimizer.zero_grad()


def new_parameters(module: nn.Module) -> None:
    for part in module.modules():
        for key, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, key, nn.Parameter(parameter.detach() * 1.2))


def other_layouts(module: nn.Module) -> None:
    """Weights of linear layers in channels last, or with strides that no kernel expects."""
    layers = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    for index, layer in enumerate(layers):
        weight = layer.weight.data
        transposed = weight.transpose(0, 1).contiguous().transpose(0, 1)
        layer.weight.data = transposed if index % 2 else weight.to(memory_format=torch.channels_last)
        if layer.bias is not None:
            layer.bias.data = strided(layer.bias.data)


def strided_norms(module: nn.Module) -> None:
    """Not together with maps in channels last, for which torch's own norm ignores these strides backward."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data, part.bias.data = strided(part.weight.data), strided(part.bias.data)
            part.running_mean = strided(part.running_mean)  # type: ignore[arg-type]


def strided(vector: Tensor) -> Tensor:
    return torch.stack([vector, vector + 1], 1)[:, 0]


def tie(module: nn.Module) -> None:
    """Two layers share a parameter, whose gradients add up."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for first in norms:
        for second in norms:
            if first is not second and first.num_features == second.num_features:
                second.weight = first.weight
                return


def convert(module: nn.Module) -> None:
    module.float().double()


def to_channels_last(module: nn.Module) -> None:
    module.to(memory_format=torch.channels_last)


CHANGES = [
    load,
    assign,
    set_data,
    optimise,
    new_parameters,
    other_layouts,
    strided_norms,
    tie,
    convert,
    to_channels_last,
]
FEATURES: list[Tensor] = []


@pytest.mark.parametrize("change", CHANGES)
@LARGE
def test_tensors_replaced_between_steps(name: str, change: Callable[[nn.Module], None]) -> None:
    """Nothing that a step keeps hides other values."""
    module, features = subject(name), features_for(name)
    FEATURES[:] = [features]
    take_step(module, features)
    module.zero_grad()
    change(module)
    expected = expected_step(module, features)
    assert_fused(module, features)
    check_step(take_step(module, features), expected)


@EVERY_SUBJECT
def test_functional_call(name: str) -> None:
    """Gradients of other parameters; other buffers are updated, and the module's own are not."""
    module, features = subject(name), features_for(name)
    state = changed(dict(module.state_dict()))
    parameters = {key: state[key].requires_grad_() for key, _ in module.named_parameters()}
    own = {key: value.clone() for key, value in module.state_dict().items()}
    steps = []
    for context in (plain_torch, torch.enable_grad):
        leaves = {key: value.detach().clone().requires_grad_() for key, value in parameters.items()}
        buffers = {key: state[key].clone() for key, _ in module.named_buffers()}
        with context():
            outputs = as_list(functional_call(module, leaves | buffers, (features,)))
            gradients = torch.autograd.grad(outputs, list(leaves.values()), random_gradients(outputs))
        named = {f"output {index}": output.detach() for index, output in enumerate(outputs)}
        steps.append(Step(named, dict(zip(leaves, gradients, strict=True)), dict(buffers)))
    check_step(steps[1], steps[0])
    assert all(torch.equal(value, own[key]) for key, value in module.state_dict().items())


@LARGE
def test_function_transforms(name: str) -> None:
    """torch.func.grad and vjp of a step, by whichever path."""
    module, features = subject(name), features_for(name, wants_gradient=False)
    parameters = {key: value.detach() for key, value in module.named_parameters()}

    def loss(values: dict[str, Tensor], image: Tensor) -> Tensor:
        buffers = {key: value.clone() for key, value in module.named_buffers()}
        outputs = as_list(functional_call(module, values | buffers, (image,)))
        return torch.stack([output.square().sum() for output in outputs]).sum()

    with plain_torch():
        expected = torch.func.grad(loss)(parameters, features)
    found = torch.func.grad(loss)(parameters, features)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, wanted in expected.items():
        torch.testing.assert_close(found[key], wanted, rtol=1e-8, atol=1e-10 * largest)


@LARGE
def test_module_of_threads(name: str) -> None:
    """Two threads train two copies at once, each with what is kept for its own."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    copies = [copy.deepcopy(module) for _ in range(4)]
    with ThreadPoolExecutor(2) as pool:
        for step in pool.map(lambda part: take_step(part, features), copies):
            check_step(step, expected)


@LARGE
def test_backward_in_another_thread(name: str) -> None:
    """And outside a block that forced the backend, or switched the fused operators off."""
    module, features = subject(name), features_for(name)
    expected = expected_step(module, features)
    for context in (torch.enable_grad, plain_torch):
        part, leaf = copy.deepcopy(module), like(features)
        with context():
            outputs = as_list(part(leaf))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(random_loss, outputs).result()
        check_step(collect(part, outputs, leaf), expected)
    part, leaf = copy.deepcopy(module), like(features)
    outputs = as_list(part(leaf))
    with plain_torch():
        random_loss(outputs)
    check_step(collect(part, outputs, leaf), expected)


def test_memory_is_freed() -> None:
    """A step leaves no graph behind: neither outputs nor what was kept for the backward pass."""
    module, features = subject("pairwise network"), features_for("pairwise network")
    alive: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        alive.append(weakref.ref(tensor))
        return tensor

    for _ in range(2):
        leaf = like(features)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = as_list(module(leaf))
        random_loss(outputs)
        own = {id(tensor) for tensor in (*module.parameters(), *module.buffers(), leaf)}
        del outputs
        gc.collect()
        assert alive
        assert not [ref for ref in alive if (tensor := ref()) is not None and id(tensor) not in own]
        alive.clear()
