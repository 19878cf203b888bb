"""Every way to write the values of a tensor of a module.

Each is a generator: what precedes ``yield`` happens before the first evaluation, the write after it.
"""

from __future__ import annotations

import copy
import ctypes
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

Write = Callable[[Any, random.Random], Iterator[None]]
VALUE_WRITES: dict[str, Write] = {}


def a_tensor(module: nn.Module, dice: random.Random) -> tuple[nn.Module, str, Any]:
    """A parameter or buffer that evaluations read, with the module that has it."""
    tensors = [(part, part._parameters) for part in module.modules()]
    tensors += [(part, part._buffers) for part in module.modules()]
    return dice.choice(
        [
            (part, name, tensor)
            for part, registry in tensors
            for name, tensor in registry.items()
            if tensor is not None and tensor.is_floating_point()
        ]
    )


def scramble(values: Any, dice: random.Random) -> None:
    """Write one element or all of a tensor or array; variances stay positive."""
    index = tuple(dice.randrange(size) for size in values.shape) if dice.random() < 0.5 else ...
    values[index] = (values[index] * dice.uniform(1.5, 3) + dice.uniform(0.5, 1)) * 1.0


def writes(alias: Callable[[Any], Any]) -> Write:
    """A write of a tensor through something that shares its memory."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        tensor = a_tensor(module, dice)[2]
        yield
        with torch.no_grad():
            scramble(alias(tensor), dice)

    return write


def memory_of(tensor: Tensor) -> np.ndarray:
    """The elements at the address."""
    array = (ctypes.c_float * tensor.numel()).from_address(tensor.data_ptr())
    return np.ctypeslib.as_array(array).reshape(tensor.shape)


VALUE_WRITES |= {
    "in place": writes(lambda tensor: tensor),
    "data": writes(lambda tensor: tensor.data),
    "detached": writes(lambda tensor: tensor.detach()),
    "numpy": writes(lambda tensor: tensor.detach().numpy()),
    "DLPack": writes(lambda tensor: torch.from_dlpack(tensor.detach())),
    "view of the storage": writes(
        lambda tensor: torch.empty(0).set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape)
    ),
    "address": writes(memory_of),
}


def write(function: Write) -> Write:
    """Add a way."""
    VALUE_WRITES[function.__name__.replace("_", " ")] = function
    return function


@write
def inference_mode(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    yield
    with torch.inference_mode():
        scramble(tensor, dice)


@write
def memory_of_an_array(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    array = tensor.detach().numpy().copy()
    tensor.data = torch.from_numpy(array)
    yield
    scramble(array, dice)


@write
def another_process_on_shared_memory(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    alias = tensor.share_memory_().detach().numpy()
    yield
    if not (child := os.fork()):
        scramble(alias, dice)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@write
def data_assigned(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    yield
    for _ in range(2):  # the second memory may have the address that the first had at the evaluation
        values = tensor.detach().clone()
        scramble(values, dice)
        tensor.data = values


@write
def data_assigned_to_its_own_memory(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    yield
    tensor.data = tensor.data.view_as(tensor)
    scramble(tensor.data, dice)


@write
def data_transposed(module: nn.Module, dice: random.Random) -> Iterator[None]:
    """The memory is the same, its order of elements another."""
    squares = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    squares = [part for part in squares if part.weight.shape[0] == part.weight.shape[1]]
    yield
    if squares:
        tensor = dice.choice(squares).weight
        tensor.data = tensor.data.transpose(0, 1)


@write
def set_to_other_memory(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    values = tensor.detach().clone()
    yield
    scramble(values, dice)
    with torch.no_grad():
        tensor.set_(values)


@write
def swapped(module: nn.Module, dice: random.Random) -> Iterator[None]:
    owner, name, _ = a_tensor(module, dice)
    values = getattr(owner, name).detach().clone()
    yield
    scramble(values, dice)
    tensor = getattr(owner, name)
    torch.utils.swap_tensors(tensor, nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values)


@write
def foreach(module: nn.Module, dice: random.Random) -> Iterator[None]:
    yield
    with torch.no_grad():
        torch._foreach_mul_(list(module.parameters()), dice.uniform(1.1, 1.3))


@write
def vector(module: nn.Module, dice: random.Random) -> Iterator[None]:
    yield
    vector_to_parameters(1.2 * parameters_to_vector(module.parameters()).detach(), module.parameters())


def steps_of(optimizer: type[torch.optim.Optimizer], **options: Any) -> Write:
    """Steps of an optimizer, which keeps its state."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        steps = optimizer(module.parameters(), lr=0.05, **options)
        for again in (False, True):
            for parameter in module.parameters():
                parameter.grad = torch.ones_like(parameter)
            if again:
                yield
            steps.step()
        module.zero_grad()

    return write


for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad):
    for implementation in ("fused", "foreach"):
        VALUE_WRITES[f"{implementation} step of {kind.__name__}"] = steps_of(kind, **{implementation: True})


def loads(assign: bool) -> Write:
    """Another state."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        state = {name: 1.2 * tensor for name, tensor in module.state_dict().items()}
        yield
        module.load_state_dict(state, assign=assign)

    return write


VALUE_WRITES |= {"state dict": loads(assign=False), "state dict assigned": loads(assign=True)}


@write
def moving_average_of_mmengine(module: nn.Module, dice: random.Random) -> Iterator[None]:
    hooks, averages = pytest.importorskip("mmengine.hooks"), pytest.importorskip("mmengine.model")
    hook = hooks.EMAHook()
    hook.src_model, hook.ema_model = module, averages.ExponentialMovingAverage(module)
    for tensor in hook.ema_model.parameters():
        tensor.data.mul_(1.2)
    yield
    hook._swap_ema_parameters()


@write
def moving_average_of_timm(module: nn.Module, dice: random.Random) -> Iterator[None]:
    trained = copy.deepcopy(module)
    average = pytest.importorskip("timm.utils").ModelEmaV3(trained, decay=0.5)
    average.module = module
    yield
    for tensor in trained.parameters():
        tensor.data.mul_(1.4)
    average.update(trained)


@write
def moving_average_of_torch(module: nn.Module, dice: random.Random) -> Iterator[None]:
    trained = copy.deepcopy(module)
    average = torch.optim.swa_utils.AveragedModel(trained)
    average.module = module
    average.update_parameters(trained)
    yield
    for tensor in trained.parameters():
        tensor.data.mul_(1.4)
    average.update_parameters(trained)


@write
def collective(module: nn.Module, dice: random.Random) -> Iterator[None]:
    tensor = a_tensor(module, dice)[2]
    values = tensor.detach().clone()
    yield
    scramble(values, dice)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        dist.all_gather([tensor.detach()], values)
        dist.all_reduce(tensor.detach())
    finally:
        dist.destroy_process_group()
