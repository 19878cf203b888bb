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
from ...ops.norm_factors import norm_gradient, norm_scale_and_shift, norm_track
from .function import Gradients, Values, tensors_of


class NormState(NamedTuple):
    """A norm in one call."""

    folded: Tensor
    """(4, C), float64: scale, shift, mean and inverse deviation."""
    prologue: AffineReLU
    """Scale and shift as operators take them, in the dtype in which the input is computed."""
    numbers: float
    """How many numbers of each channel the statistics are of; 0 for frozen statistics."""
    group: Any
    """The processes that share the statistics, or None."""

    @property
    def scale(self) -> Tensor:
        """(C,), float64: what the input is multiplied by."""
        return self.folded[0]

    @property
    def shift(self) -> Tensor:
        """(C,), float64: what is added."""
        return self.folded[1]

    @property
    def mean(self) -> Tensor:
        """(C,), float64."""
        return self.folded[2]

    @property
    def is_frozen(self) -> bool:
        """Whether the statistics do not depend on the input."""
        return self.numbers == 0


class NormGradient(NamedTuple):
    """What follows from the sums of the gradient of a norm's output."""

    tensors: Gradients
    """Those of weight and bias."""
    means: Tensor
    """m1 and m2, (2, C): the gradient of the input is ``scale * (grad - m1 - m2 * (input - mean))``."""
    factors: Tensor
    """k1, k2 and k3, (3, C), or k1, (1, C): the same as ``k1 * grad + k2 * input + k3``."""


class TrainingNorm(NamedTuple):
    """A norm of a step: a batch norm, or ``nn.Identity`` for the scale 1 and the shift 0."""

    name: str
    module: nn.Module
    channels: int

    def tensors(self) -> Values:
        """Weight and bias, if the norm has them."""
        return {} if isinstance(self.module, nn.Identity) else tensors_of(self.name, self.module)

    def uses_batch_statistics(self) -> bool:
        """Whether the statistics are those of the input."""
        module: Any = self.module
        return not isinstance(module, nn.Identity) and (module.training or module.running_mean is None)

    def start(self, values: Values, statistics: Callable[[], Tensor], numbers: int, like: Tensor) -> NormState:
        """Normalise by batch statistics and update the running ones, or by the running ones if they are frozen.

        Args:
            values: The tensors of the step.
            statistics: Computes mean and biased variance of the input, (2, C) in float64.
            numbers: How many numbers each channel of the input has.
            like: A map, whose dtype and device are those of the input.
        """
        module: Any = self.module
        count, group = 0.0, None
        weight, bias, eps = values.get(f"{self.name}.weight"), values.get(f"{self.name}.bias"), 0.0
        if isinstance(module, nn.Identity):
            both = torch.zeros(2, self.channels, dtype=torch.float64, device=like.device)
            both[1] = 1
        elif self.uses_batch_statistics():
            eps, count, group = module.eps, float(numbers), self._group()
            if numbers == 1 and group is None:
                size = torch.Size([1, self.channels, 1, 1])
                raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
            both = statistics()
            if group is not None:
                both, count = _combine(both, count, group)
            self._track(both, count)
        else:
            eps, both = module.eps, torch.stack([module.running_mean, module.running_var]).double()
        folded, coefficients = norm_scale_and_shift(both, weight, bias, eps)
        if like.dtype == torch.float64:
            coefficients = folded[:2]
        return NormState(folded, AffineReLU(*coefficients.unbind()), count, group)

    def gradients(self, state: NormState, sums: Tensor) -> NormGradient:
        """Compute the gradients of weight and bias, and what that of the input consists of.

        Args:
            state: The norm of this call.
            sums: (2, C) in float64: the sum of the gradient of the norm's output, and that of its product with
                ``input - mean``.
        """
        totals = None
        if state.group is not None:
            totals = sums.clone()
            dist.all_reduce(totals, group=state.group)
        (of_weight, of_bias), means, factors = norm_gradient(sums, totals, state.folded, state.numbers)
        return NormGradient({f"{self.name}.weight": of_weight, f"{self.name}.bias": of_bias}, means, factors)

    def _group(self) -> Any:
        """The processes over which SyncBatchNorm computes its statistics, or None."""
        module = self.module
        if not isinstance(module, nn.SyncBatchNorm) or not module.training:
            return None
        if not (dist.is_available() and dist.is_initialized()):
            return None
        group = module.process_group or dist.group.WORLD
        return group if dist.get_world_size(group) > 1 else None

    def _track(self, statistics: Tensor, count: float) -> None:
        """Update the running statistics, as torch's batch norm does."""
        module: Any = self.module
        if not (module.training and module.track_running_stats):
            return
        factor = module.momentum
        if module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
            factor = 1.0 / float(module.num_batches_tracked) if factor is None else factor
        if module.running_mean is not None:
            norm_track(statistics, module.running_mean, module.running_var, 0.0 if factor is None else factor, count)


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
