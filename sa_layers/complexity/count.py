"""Parameters, multiply-adds and FLOPs of a network, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ..ops import backend, fused
from ..ops import extension as native_extension
from .official import multiply_adds


class Layer(NamedTuple):
    """Cost of one module of a network, excluding its children."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    flops: int


class Complexity(NamedTuple):
    """Cost of a network for one image."""

    layers: tuple[Layer, ...]
    flops: int

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds by the rules of :mod:`sa_layers.complexity.official`."""
        return sum(layer.multiply_adds for layer in self.layers)


def count(network: nn.Module, size: Sequence[int] = (224, 224), in_channels: int = 3) -> Complexity:
    """Count the cost of one image in evaluation mode, on fake tensors and therefore without computing anything.

    FLOPs are those of :mod:`torch.utils.flop_counter`: two for each multiply-add of convolutions, matrix products and
    scaled dot-product attention, and of the operators of vector attention if their native kernels are installed.

    Args:
        network: Module that takes an image. It is not changed. Create large networks under ``torch.device('meta')``,
            where they need no memory.
        size: Height and width of the image in pixels. Defaults to (224, 224).
        in_channels: Number of channels of the image. Defaults to 3.

    Example:
        >>> count(nn.Conv2d(3, 8, 1), size=(4, 4))[:2]
        ((Layer(name='', kind='Conv2d', output=(1, 8, 4, 4), parameters=32, multiply_adds=512, flops=768),), 768)
    """
    network = copy.deepcopy(network).to("meta").eval()
    outputs: dict[nn.Module, tuple[int, ...]] = {}
    costs: dict[nn.Module, int] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            outputs[module] = tuple(output.shape)
            costs[module] = costs.get(module, 0) + multiply_adds(module, inputs[0], output)

    for module in network.modules():
        module.register_forward_hook(record)
    kernels = "native" if native_extension.is_available() else "torch"
    # Fake tensors, because autocast does not support the meta device. Unfused, so that every module is called.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), backend(kernels), fused(False):
        network.to_empty(device="cpu")
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, in_channels, *size))
    flops = _flops(network, counter)
    layers = tuple(
        Layer(
            name,
            type(module).__name__,
            outputs[module],
            sum(parameter.numel() for parameter in module.parameters(recurse=False) if parameter.requires_grad),
            costs[module],
            flops[module] - sum(flops[child] for child in module.children()),
        )
        for name, module in network.named_modules()
        if module in outputs
    )
    return Complexity(layers, flops[network])


def _flops(network: nn.Module, counter: FlopCounterMode) -> dict[nn.Module, int]:
    """Return the FLOPs of each module, including its children."""
    root, counts = type(network).__name__, counter.get_flop_counts()
    totals: dict[nn.Module, int] = {}
    for name, module in reversed(list(network.named_modules())):  # children before parents
        counted = counts.get(f"{root}.{name}" if name else root)
        # A ModuleList is never called and has no count of its own.
        totals[module] = sum(counted.values()) if counted else sum(totals[child] for child in module.children())
    return totals
