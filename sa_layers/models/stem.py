"""The stem of a self-attention network: a linear layer of every pixel, norm and activation."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..fused import FusedModule
from ..fused.eligibility import why_not_modules
from ..fused.evaluation.network import EvaluationStem
from ..fused.evaluation.parameters import Parameters, linear_layers
from ..fused.originals import replaceable
from ..fused.training.norm import TrainingNorm
from ..fused.training.stem import StemStep
from ..ops.projection import Linear


@replaceable("forward")
class Stem(FusedModule[EvaluationStem], nn.Sequential):
    """Linear layer, norm and activation, in this order.

    Args:
        *modules: The linear layer, the norm and the activation.
    """

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why the stem and the pooling of the first stage cannot be one operator, or None."""
        modules: list[Any] = list(self)
        if len(modules) != 3:
            return f"the stem has {len(modules)} modules instead of three"
        linear, norm, activation = modules
        return why_not_modules(
            norms=[norm], activations=[activation], linear=[linear], containers=[self], training=training
        )

    def plan_training(self) -> StemStep:
        """Return the stem and the 2x2 pooling of the first stage in training."""
        linear: Any = self[0]
        return StemStep(linear, TrainingNorm("norm", self[1], linear.out_channels))

    def plan(self, parameters: Parameters) -> EvaluationStem:
        """Return the parameters of the operator that computes the stem and the 2x2 pooling of the first stage."""
        return EvaluationStem(Linear.of_layers(*linear_layers([self[0]])), parameters.add_norm(self[1], after=self[0]))
