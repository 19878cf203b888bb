"""Ways to change what a module consists of, other than the values of its tensors.

Each is a generator, as in ``value_writes.py``.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, SelfAttentionBlock
from sa_layers.layers.position import PositionEncoding
from sa_layers.models import SelfAttentionNetwork
from sa_layers.models.self_attention_stage import SelfAttentionStage
from sa_layers.ops.footprint import Footprint
from tests.fused.evaluation import a_module
from tests.fused.value_writes import Write, a_tensor, scramble

Change = Callable[[Any, random.Random], Any]
STRUCTURE_CHANGES: dict[str, Write] = {}


def change(function: Change) -> Change:
    """Add a change that needs no preparation."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        yield
        function(module, dice)

    STRUCTURE_CHANGES[function.__name__.replace("_", " ")] = write
    return function


def attribute(kind: type[nn.Module], name: str, *values: Any) -> None:
    """Add the assignment of an attribute of the modules of a type, if there are any."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        yield
        if any(isinstance(part, kind) for part in module.modules()):
            setattr(a_module(module, kind, dice), name, dice.choice(values))

    STRUCTURE_CHANGES[f"{name} of a {kind.__name__}"] = write


attribute(nn.BatchNorm2d, "eps", 0.5, 0, torch.tensor(0.5))
attribute(nn.BatchNorm2d, "momentum", 0.9, None)
attribute(nn.BatchNorm2d, "num_features", 3)
attribute(nn.BatchNorm2d, "training", True)
attribute(nn.BatchNorm2d, "track_running_stats", False)
for missing in ("weight", "bias", "running_mean", "running_var"):
    attribute(nn.BatchNorm2d, missing, None)
attribute(nn.MaxPool2d, "kernel_size", 3, (1, 1), [2, 2])
attribute(nn.MaxPool2d, "stride", 1, (2, 1), (2, 2))
attribute(nn.MaxPool2d, "padding", 1)
attribute(nn.MaxPool2d, "dilation", 2)
attribute(nn.MaxPool2d, "ceil_mode", True)
attribute(nn.MaxPool2d, "return_indices", True)
attribute(nn.Conv2d, "stride", (2, 2), [2, 2])
attribute(nn.Conv2d, "padding", (1, 1), "same")
attribute(nn.Conv2d, "padding_mode", "circular")
attribute(nn.Conv2d, "dilation", (2, 2))
attribute(nn.Conv2d, "groups", 2)
attribute(nn.Conv2d, "bias", None)
attribute(nn.ReLU, "inplace", False)
attribute(PairwiseSelfAttention, "footprint", Footprint.parse(5), Footprint.parse(3, dilation=2))
attribute(PairwiseSelfAttention, "relation", "summation", "subtraction", "hadamard")
attribute(PairwiseSelfAttention, "shared_transforms", "query_key")
attribute(PairwiseSelfAttention, "position", None)
attribute(PositionEncoding, "size", (9, 9), [7, 8])
attribute(PositionEncoding, "position", "relative", "absolute")
attribute(SelfAttentionBlock, "act2", nn.GELU(), nn.Identity())
attribute(SelfAttentionStage, "blocks", nn.ModuleList())
attribute(SelfAttentionNetwork, "out_indices", (0,), (1,))


@change
def parameter_replaced(module: nn.Module, dice: random.Random) -> None:
    owner, name, tensor = a_tensor(module, dice)
    values = tensor.detach().clone()
    scramble(values, dice)
    setattr(owner, name, nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values)


@change
def parameter_replaced_twice(module: nn.Module, dice: random.Random) -> None:
    """By an equal one, which is then written."""
    owner, name, tensor = a_tensor(module, dice)
    equal: Any = tensor.detach().clone()
    setattr(owner, name, nn.Parameter(equal) if isinstance(tensor, nn.Parameter) else equal)
    module(torch.zeros(1, *first_shape(module)))
    scramble(getattr(owner, name).data, dice)


def first_shape(module: nn.Module) -> tuple[int, int, int]:
    """Of an input."""
    first = next(part for part in module.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d))
    return (first.in_channels if isinstance(first, nn.Conv2d) else first.num_features), 8, 8


def without(owner: nn.Module, name: str, dice: random.Random) -> Tensor:
    """Delete a tensor and return other values for it."""
    values = getattr(owner, name).detach().clone()
    scramble(values, dice)
    delattr(owner, name)
    return values


@change
def plain_tensor(module: nn.Module, dice: random.Random) -> None:
    owner, name, _ = a_tensor(module, dice)
    setattr(owner, name, without(owner, name, dice))


@change
def plain_tensor_with_a_gradient(module: nn.Module, dice: random.Random) -> None:
    owner, name, _ = a_tensor(module, dice)
    setattr(owner, name, without(owner, name, dice).requires_grad_())


@change
def buffer(module: nn.Module, dice: random.Random) -> None:
    owner, name, _ = a_tensor(module, dice)
    owner.register_buffer(name, without(owner, name, dice))


@change
def registry(module: nn.Module, dice: random.Random) -> None:
    owner, name, tensor = a_tensor(module, dice)
    values = tensor.detach().clone()
    scramble(values, dice)
    names = owner._parameters if name in owner._parameters else owner._buffers
    names[name] = nn.Parameter(values) if names is owner._parameters else values


@change
def another_registry(module: nn.Module, dice: random.Random) -> None:
    owner, name, tensor = a_tensor(module, dice)
    names = "_parameters" if name in owner._parameters else "_buffers"
    setattr(owner, names, dict(getattr(owner, names)))
    module(torch.zeros(1, *first_shape(module)))
    getattr(owner, names)[name] = nn.Parameter(1.7 * tensor.detach() + 0.3)


@change
def none_above_a_buffer(module: nn.Module, dice: random.Random) -> None:
    """A parameter that is None hides a buffer of the same name."""
    layer = a_module(module, nn.Conv2d, dice)
    layer.bias = None
    layer._buffers["bias"] = torch.ones(layer.out_channels)


@change
def module_replaced(module: nn.Module, dice: random.Random) -> None:
    old = a_module(module, nn.Conv2d, dice)
    new = nn.Conv2d(old.in_channels, old.out_channels, 1)
    replace(module, old, new)


@change
def norm_replaced(module: nn.Module, dice: random.Random) -> None:
    old = a_module(module, nn.BatchNorm2d, dice)
    new = dice.choice([nn.GroupNorm(1, old.num_features), nn.Identity(), nn.BatchNorm2d(old.num_features).eval()])
    replace(module, old, new)


@change
def activation_replaced(module: nn.Module, dice: random.Random) -> None:
    replace(module, a_module(module, nn.ReLU, dice), dice.choice([nn.GELU(), nn.Identity(), nn.ReLU6()]))


def replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put one module in the place of another."""
    for part in list(root.modules()):
        for name, child in list(part.named_children()):
            if child is old:
                setattr(part, name, new)


@change
def scripted_activation(module: nn.Module, dice: random.Random) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which users still have
        replace(module, a_module(module, nn.ReLU, dice), torch.jit.script(nn.GELU()))


@change
def order_of_modules(module: nn.Module, dice: random.Random) -> None:
    """Of a list or sequence: its first two modules of one type change places, or keep their names and change order."""
    containers = [part for part in module.modules() if isinstance(part, nn.ModuleList) and len(part) > 1]
    if containers:
        part = containers[0]
        if dice.random() < 0.5:
            part[0], part[1] = part[1], part[0]
        else:
            part._modules["0"] = part._modules.pop("0")


@change
def a_block_more(module: nn.Module, dice: random.Random) -> None:
    containers = [part for part in module.modules() if isinstance(part, SelfAttentionStage)]
    if containers:
        stage = dice.choice(containers)
        stage.blocks.append(SelfAttentionBlock(stage.transition.out_channels, 3, share=4).eval())


def change_class(kind: type[nn.Module]) -> None:
    """Add an assignment of ``__class__``, as parametrisations and quantisers do it."""

    class Doubled(kind):  # type: ignore[misc, valid-type]
        def forward(self, features: Tensor) -> Tensor:
            return 2 * super().forward(features)

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        yield
        a_module(module, kind, dice).__class__ = Doubled

    STRUCTURE_CHANGES[f"class of a {kind.__name__}"] = write


for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU):
    change_class(kind)


@change
def other_method(module: nn.Module, dice: random.Random) -> None:
    part = a_module(module, (nn.Conv2d, nn.BatchNorm2d, nn.ReLU), dice)
    name = dice.choice(["forward", "_call_impl", *["_conv_forward"] * isinstance(part, nn.Conv2d)])
    method = getattr(part, name)
    setattr(part, name, lambda *arguments: 2 * method(*arguments) + 0.1)


@change
def hook(module: nn.Module, dice: random.Random) -> None:
    part = a_module(module, nn.Module, dice)
    if dice.random() < 0.5:
        part.register_forward_pre_hook(lambda part, inputs: tuple(1.5 * tensor for tensor in inputs))
    else:
        part.register_forward_hook(
            lambda part, inputs, outputs: 1.5 * outputs if isinstance(outputs, Tensor) else None,
            always_call=dice.random() < 0.5,
        )


def hook_removed(module: nn.Module, dice: random.Random) -> Iterator[None]:
    part = a_module(module, nn.Module, dice)
    handle = part.register_forward_pre_hook(lambda part, inputs: tuple(1.5 * tensor for tensor in inputs))
    yield
    handle.remove()


STRUCTURE_CHANGES["hook removed"] = hook_removed
