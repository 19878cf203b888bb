"""Changes of a module by torch's own tools: reparametrisations, conversions, and tensors of other types and shapes.

Each is a generator, as in ``value_writes.py``.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from sa_layers.layers import SelfAttentionBlock
from tests.fused.evaluation import a_module
from tests.fused.value_writes import Write, a_tensor

CONVERSIONS: dict[str, Write] = {}


class Doubled(nn.Module):
    """Twice a parameter."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class Halved(Tensor):
    """A tensor of another type, which a convolution halves."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = super().__torch_function__(function, types, arguments, options or {})
        plain = result.as_subclass(Tensor) if isinstance(result, cls) else result
        return plain / 2 if function is torch.conv2d or function is nn.functional.conv2d else plain


def reparametrised(apply: Callable[[nn.Module], Any], undo: Callable[[nn.Module], Any]) -> Write:
    """A tool applied to a convolution and its tensors written; or applied before and undone."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        layer, undone = a_module(module, nn.Conv2d, dice), dice.random() < 0.5
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if undone:
                apply(layer)
                scale(layer)
            yield
            (undo if undone else apply)(layer)
        if not undone:
            scale(layer)

    return write


def scale(layer: nn.Module) -> None:
    """Write all parameters."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.7)


def remove(layer: nn.Module) -> None:
    """Remove a parametrisation, keeping what it computed."""
    parametrize.remove_parametrizations(layer, "weight")


old = nn.utils
CONVERSIONS |= {
    "parametrisation": reparametrised(
        lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()), remove
    ),
    "weight norm": reparametrised(parametrizations.weight_norm, remove),
    "weight norm by a hook": reparametrised(old.weight_norm, old.remove_weight_norm),
    "spectral norm": reparametrised(parametrizations.spectral_norm, remove),
    "spectral norm by a hook": reparametrised(old.spectral_norm, old.remove_spectral_norm),
    "pruning": reparametrised(
        lambda layer: prune.random_unstructured(layer, "weight", 0.5), lambda layer: prune.remove(layer, "weight")
    ),
}


def change(function: Callable[[Any, random.Random], Any]) -> None:
    """Add a change that needs no preparation."""

    def write(module: nn.Module, dice: random.Random) -> Iterator[None]:
        yield
        function(module, dice)

    CONVERSIONS[function.__name__.replace("_", " ")] = write


@change
def conversion(module: nn.Module, dice: random.Random) -> None:
    dtype = dice.choice([torch.float64, torch.bfloat16, torch.float16, None])
    module.to(memory_format=torch.channels_last) if dtype is None else module.to(dtype)


@change
def conversion_of_a_part(module: nn.Module, dice: random.Random) -> None:
    """A part without buffers keeps its parameters, whose data are other tensors then."""
    a_module(module, nn.Module, dice).to(dice.choice([torch.float64, torch.bfloat16]))


@change
def conversion_of_data(module: nn.Module, dice: random.Random) -> None:
    dtype = dice.choice([torch.float64, torch.bfloat16])
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


@change
def conversion_of_one_tensor(module: nn.Module, dice: random.Random) -> None:
    tensor = a_tensor(module, dice)[2]
    tensor.data = tensor.data.to(dice.choice([torch.float64, torch.bfloat16]))


@change
def conversion_by_swapping(module: nn.Module, dice: random.Random) -> None:
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.to(dice.choice([torch.float64, torch.bfloat16]))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


@change
def subclass_swapped_in(module: nn.Module, dice: random.Random) -> None:
    layer = a_module(module, nn.Conv2d, dice)
    layer.requires_grad_(False)
    torch.utils.swap_tensors(layer.weight, (3 * layer.weight.detach()).as_subclass(Halved))


@change
def half_of_the_channels(module: nn.Module, dice: random.Random) -> None:
    """As tools that prune channels do, without an assignment of an attribute."""
    blocks = [part for part in module.modules() if isinstance(part, SelfAttentionBlock)]
    for block in blocks:
        if block.attention.shared_transforms == "all":
            continue
        kept = block.attention.value.weight.shape[0] // 2
        norm, value = block.norm2, block.attention.value
        for tensor in (value.weight, value.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data = tensor.data[:kept]
        block.expansion.weight.data = block.expansion.weight.data[:, :kept]


@change
def no_gradient(module: nn.Module, dice: random.Random) -> None:
    a_module(module, nn.Module, dice).requires_grad_(dice.random() < 0.5)
