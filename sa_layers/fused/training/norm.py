"""A batch norm in training: its statistics and its gradients, around operators that compute with a scale and a shift.

With batch statistics, the normalised map is never written. The operator before the norm, or a pass of its own, computes
mean and variance; the operator behind it multiplies by the scale and adds the shift as its prologue. In the backward
pass, the operator behind the norm returns two sums for each channel, from which everything else follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...ops import AffineReLU
from ...ops.torch_internals import value_of
from .function import Gradients, Values


class NormGradient(NamedTuple):
    """What follows from the sums of a norm's gradient."""

    first_mean: Tensor | None
    """(C,), the mean of the gradient of the normalised map; None for frozen statistics."""
    second_mean: Tensor | None
    """(C,), its mean times the normalised map."""


class NormState(NamedTuple):
    """A norm in one call."""

    scale: Tensor
    """(C,), float64: what the input is multiplied by."""
    shift: Tensor
    """(C,), float64: what is added."""
    mean: Tensor
    """(C,), float64."""
    inverse_deviation: Tensor
    """(C,), float64."""
    numbers: float | None
    """The numbers in each channel that the statistics are of; None for frozen statistics."""
    group: Any
    """The processes that share the statistics, or None."""

    def prologue(self, dtype: torch.dtype) -> AffineReLU:
        """Scale and shift as operators take them."""
        return AffineReLU(self.scale.to(dtype), self.shift.to(dtype))


class TrainingNorm(NamedTuple):
    """A norm of a step: a batch norm, or ``nn.Identity`` for the scale 1 and the shift 0."""

    name: str
    module: nn.Module
    channels: int

    def tensors(self) -> Values:
        """Weight and bias, if the norm has them."""
        if isinstance(self.module, nn.Identity):
            return {}
        named = {f"{self.name}.{part}": value_of(self.module, part) for part in ("weight", "bias")}
        return {name: value for name, value in named.items() if value is not None}

    def uses_batch_statistics(self) -> bool:
        """Whether the statistics are those of the input."""
        module: Any = self.module
        return not isinstance(module, nn.Identity) and (module.training or module.running_mean is None)

    def start(self, values: Values, statistics: Callable[[], Tensor], count: int, device: torch.device) -> NormState:
        """Normalise by batch statistics and update the running ones, or by the running ones if they are frozen.

        Args:
            values: The tensors of the step.
            statistics: Computes mean and biased variance of the input, (2, C) in float64.
            count: The numbers in each channel of the input.
            device: That of the input.
        """
        module: Any = self.module
        if isinstance(module, nn.Identity):
            one = torch.ones(self.channels, dtype=torch.float64, device=device)
            zero = torch.zeros_like(one)
            return NormState(one, zero, zero, one, None, None)
        total: float | None = None
        group = None
        if self.uses_batch_statistics():
            total, group = float(count), self._group()
            both = statistics()
            if group is not None:
                both, total = _combine(both, total, group)
            mean, variance = both.unbind()
            self._track(mean, variance, total)
        else:
            mean, variance = module.running_mean.double(), module.running_var.double()
        inverse = (variance + module.eps).rsqrt()
        weight, bias = values.get(f"{self.name}.weight"), values.get(f"{self.name}.bias")
        scale = inverse if weight is None else inverse * weight
        shift = mean * scale
        shift = shift.neg() if bias is None else bias - shift
        return NormState(scale, shift, mean, inverse, total, group)

    def gradients(self, state: NormState, sums: Tensor) -> tuple[Gradients, NormGradient]:
        """Compute the gradients of weight and bias.

        Args:
            state: The norm of this call.
            sums: (2, C) in float64: the sum of the gradient of the norm's output, and that of its product with
                ``input - mean``.

        Returns:
            The gradients, and the means of the gradient, of which those of the input consist.
        """
        of_bias, of_weight = sums[0], sums[1] * state.inverse_deviation
        gradients: Gradients = {f"{self.name}.weight": of_weight, f"{self.name}.bias": of_bias}
        if state.numbers is None:
            return gradients, NormGradient(None, None)
        means = torch.stack([of_bias, of_weight])
        if state.group is not None:
            dist.all_reduce(means, group=state.group)
        means = means / state.numbers
        return gradients, NormGradient(means[0], means[1])

    def _group(self) -> Any:
        """The processes over which SyncBatchNorm computes its statistics, or None."""
        module = self.module
        if not isinstance(module, nn.SyncBatchNorm) or not module.training:
            return None
        if not (dist.is_available() and dist.is_initialized()):
            return None
        group = module.process_group or dist.group.WORLD
        return group if dist.get_world_size(group) > 1 else None

    def _track(self, mean: Tensor, variance: Tensor, count: float) -> None:
        module: Any = self.module
        if not (module.training and module.track_running_stats):
            return
        factor = module.momentum
        if module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
            factor = 1.0 / float(module.num_batches_tracked) if factor is None else factor
        factor = 0.0 if factor is None else factor
        if module.running_mean is None:
            return
        unbiased = variance * (count / max(count - 1.0, 1.0))
        for running, value in ((module.running_mean, mean), (module.running_var, unbiased)):
            running.lerp_(value.to(running.dtype), factor)


def input_factors(state: NormState, gradient: NormGradient) -> Tensor:
    """k1, k2 and k3 of the gradient of the input, ``k1 * grad + k2 * input + k3``; (1 or 3, C) in float64.

    Only k1 for frozen statistics.
    """
    if gradient.first_mean is None or gradient.second_mean is None:
        return state.scale.unsqueeze(0)
    of_input = -state.scale * gradient.second_mean * state.inverse_deviation
    constant = -state.scale * gradient.first_mean - of_input * state.mean
    return torch.stack([state.scale, of_input, constant])


def _combine(statistics: Tensor, count: float, group: Any) -> tuple[Tensor, float]:
    """Mean, variance and count over all processes (Chan's formula)."""
    local = torch.cat([statistics.flatten(), statistics.new_tensor([count])])
    gathered = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, local, group=group)
    counts = torch.stack([part[-1] for part in gathered])
    parts = torch.stack([part[:-1].view_as(statistics) for part in gathered])  # (processes, 2, C)
    share = (counts / counts.sum())[:, None]
    mean = (share * parts[:, 0]).sum(0)
    variance = (share * (parts[:, 1] + (parts[:, 0] - mean) ** 2)).sum(0)
    return torch.stack([mean, variance]), float(counts.sum())
