"""One autograd function for all steps of fused training.

A step computes a part of a network by fused operators: it has a forward and a backward method, and knows the tensors
that it trains. The function connects it with autograd. Parameters are inputs of the function, so their gradients are
accumulated, and hooks of them called, as those of modules are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...ops import backend
from ...ops.checks import without_autocast
from ...ops.torch_internals import value_of

Values = dict[str, Tensor]
"""Tensors of a step by name, as they were in the forward pass."""
Gradients = dict[str, Tensor | None]
"""Gradients by the names of the tensors."""


class Kept:
    """What a forward pass keeps for the backward pass.

    Args:
        maps: Large tensors. Autograd saves them, so it finds writes to them, and hooks of saved tensors see them.
        state: Anything else: statistics and sizes.
    """

    __slots__ = ("maps", "state")

    def __init__(self, maps: Sequence[Tensor], state: Any) -> None:
        self.maps, self.state = maps, state


class Step(Protocol):
    """A part of a network with a forward and a backward pass of its own."""

    def tensors(self) -> Values:
        """The parameters that the step reads now, by name."""
        ...

    def forward(self, values: Values, *maps: Tensor) -> tuple[Tensor, Kept]:
        """Compute the output from feature maps (N, C, H, W), and what the backward pass needs."""
        ...

    def backward(
        self, values: Values, kept: Kept, grad: Tensor, needed: frozenset[str]
    ) -> tuple[Sequence[Tensor | None], Gradients]:
        """Compute the gradients of the maps, and those of the tensors.

        Args:
            values: The tensors, as in the forward pass.
            kept: What the forward pass kept.
            grad: The gradient of the output. Must not be written.
            needed: The names of the tensors whose gradients are needed, and ``MAP + str(index)`` for the maps. Others
                may be computed or be None.
        """
        ...


MAP = "map:"


def tensors_of(name: str, module: nn.Module) -> Values:
    """The weight and the bias of a module, those that it has, as ``name.weight`` and ``name.bias``."""
    parts = {f"{name}.{part}": value_of(module, part) for part in ("weight", "bias")}
    return {key: value for key, value in parts.items() if value is not None}


def run(step: Step, *maps: Tensor) -> Tensor:
    """Compute a step so that autograd can differentiate it once."""
    values = step.tensors()
    output: Tensor = StepFunction.apply(step, len(maps), tuple(values), *maps, *values.values())
    return output


class StepFunction(torch.autograd.Function):
    """The autograd function of every :class:`Step`."""

    @staticmethod
    def forward(ctx: Any, step: Step, maps: int, names: tuple[str, ...], *tensors: Tensor) -> Tensor:
        """Run the forward pass of a step."""
        with without_autocast(tensors[0].device):
            output, kept = step.forward(dict(zip(names, tensors[maps:], strict=True)), *tensors[:maps])
        ctx.save_for_backward(*tensors[maps:], *kept.maps)
        ctx.step, ctx.state, ctx.names, ctx.maps = step, kept.state, names, maps
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Run the backward pass of a step."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "fused training has no second derivatives, and this backward pass runs with create_graph=True; "
                "compute the forward pass inside `with sa_layers.ops.fused(False):`"
            )
        names, saved = ctx.names, ctx.saved_tensors
        values = dict(zip(names, saved, strict=False))
        kept = Kept(saved[len(names) :], ctx.state)
        labels = [f"{MAP}{index}" for index in range(ctx.maps)] + list(names)
        needed = frozenset(label for label, need in zip(labels, ctx.needs_input_grad[3:], strict=True) if need)
        with backend("native"), without_autocast(grad.device):  # that of the forward pass, whichever is forced now
            of_maps, of_tensors = ctx.step.backward(values, kept, grad, needed)
        gradients: list[Tensor | None] = [
            gradient if label in needed else None for label, gradient in zip(labels, of_maps, strict=False)
        ]
        for name in names:
            gradients.append(like(values[name], of_tensors.get(name)) if name in needed else None)
        return None, None, None, *gradients


def like(value: Tensor, gradient: Tensor | None) -> Tensor | None:
    """A gradient in the dtype and the shape of its tensor. Most have both already, and a call of torch is not free."""
    if gradient is None:
        return None
    if gradient.dtype != value.dtype:
        gradient = gradient.to(value.dtype)
    return gradient if gradient.shape == value.shape else gradient.view(value.shape)


def read_instead(output: Tensor, features: Tensor) -> Tensor:
    """Return ``features`` as what the next step reads of ``output``, which has the same values in another format.

    The gradient goes to ``output``, where a user of the output expects all of it.
    """
    result: Tensor = _ReadInstead.apply(output, features.detach())
    return result


class _ReadInstead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
