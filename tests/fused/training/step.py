"""One step of training, all that it computes, and how two of them are compared."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sa_layers.ops import backend, fused


class Step(NamedTuple):
    """What a step leaves behind, by name; None where no gradient was asked for."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor | None]


@contextmanager
def plain_torch() -> Iterator[None]:
    """Modules call one another, and every operator is computed by torch's."""
    with backend("torch"), fused(False):
        yield


def take_step(module: nn.Module, features: Tensor, backward: Callable[[list[Tensor]], object] | None = None) -> Step:
    """Forward and backward of a fixed random loss, which is linear so that errors of outputs do not spread.

    Args:
        module: Is changed by the step: gradients are added, running statistics are updated.
        features: Is copied; the gradient of the copy is part of the step if it requires one.
        backward: Called with the outputs instead of the loss.
    """
    leaf = like(features)
    outputs = as_list(module(leaf))
    (backward or random_loss)(outputs)
    return collect(module, outputs, leaf)


def collect(module: nn.Module, outputs: Sequence[Tensor], *leaves: Tensor) -> Step:
    """What is found in a module after a step; tensors are copies."""
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    gradients |= {f"input {index}": leaf.grad for index, leaf in enumerate(leaves)}
    return Step(
        {f"output {index}": output.detach().clone() for index, output in enumerate(outputs)},
        {name: None if gradient is None else gradient.detach().clone() for name, gradient in gradients.items()},
        {name: buffer.clone() for name, buffer in module.named_buffers()},
    )


def random_loss(outputs: list[Tensor]) -> None:
    """Backward with a random gradient for every output that has a graph."""
    wanted = [output for output in outputs if output.requires_grad]
    if wanted:
        torch.autograd.backward(wanted, random_gradients(wanted))


def random_gradients(outputs: Sequence[Tensor], seed: int = 7) -> list[Tensor]:
    """The same numbers for every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(output.shape, generator=generator).to(output.dtype) for output in outputs]


def as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a layer, or the features of a network."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def expected_step(module: nn.Module, features: Tensor) -> Step:
    """The step of a copy in plain torch, which starts without gradients."""
    with plain_torch():
        return take_step(copy.deepcopy(module), features)


def like(features: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Another leaf with the same numbers and strides."""
    other = torch.empty_strided(features.shape, features.stride(), dtype=dtype or features.dtype)
    return other.copy_(features.detach()).requires_grad_(features.requires_grad)


def check_step(step: Step, expected: Step, tolerance: float = 1e-9) -> None:
    """Both steps compute the same, and ask for the same gradients."""
    wrong = {name: error for name, error in errors(step, expected).items() if not error <= tolerance}
    assert not wrong, f"larger than {tolerance}: {wrong}"


def errors(step: Step, expected: Step) -> dict[str, float]:
    """The largest error of every tensor, relative to the largest number in it.

    A gradient that is zero, such as that of a bias before a norm or a softmax, is rounding noise in plain torch. Errors
    of gradients are therefore relative to a twentieth of the module's largest, if that is more; all errors to 0.01.
    """
    found: dict[str, float] = {}
    for kind, ours, theirs in zip(("", "gradient of ", ""), step, expected, strict=True):
        assert ours.keys() == theirs.keys()
        largest = max((float(tensor.abs().max()) for tensor in theirs.values() if is_full(tensor)), default=0.0)
        for name, wanted in theirs.items():
            result = ours[name]
            if wanted is None or result is None:
                assert result is wanted, f"{kind}{name} is {result}, and {wanted} in plain torch"
                continue
            assert result.shape == wanted.shape, name
            if wanted.numel():
                floor = max(largest / 20, 0.01) if kind else 0.01
                found[kind + name] = difference(result, wanted, floor)
    return found


def is_full(tensor: Tensor | None) -> bool:
    """Whether there is a largest number."""
    return tensor is not None and tensor.numel() > 0


def difference(result: Tensor, wanted: Tensor, floor: float = 0.0) -> float:
    """The largest error, relative to the largest number that is wanted or to ``floor``; NaN must meet NaN."""
    result, wanted = result.detach().double(), wanted.detach().double()
    if not torch.equal(result.isnan(), wanted.isnan()):
        return float("inf")
    scale = max(float(wanted.nan_to_num().abs().max()), floor, 1e-30)
    same = result == wanted  # infinities, too
    return float(torch.where(same, 0, result - wanted).nan_to_num(0.0).abs().max()) / scale
