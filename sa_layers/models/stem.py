"""The stem of a self-attention network: a linear layer on the pixels of the image, norm and activation."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..fused import FusedModule
from ..fused.eligibility import why_not_modules
from ..fused.network import EvaluationStem


class Stem(FusedModule[EvaluationStem], nn.Sequential):
    """Linear layer, norm and activation, in this order.

    Args:
        *modules: The three.
    """

    def why_not_eligible(self) -> str | None:
        """What keeps the stem from being one operator with the pooling of the first stage."""
        modules: list[Any] = list(self)
        if len(modules) != 3:
            return f"the stem has {len(modules)} modules instead of three"
        linear, norm, activation = modules
        return why_not_modules(norms=[norm], activations=[activation], linear=[linear], containers=[self])

    def fold(self) -> EvaluationStem:
        """The stem and the 2x2 pooling of the first stage for one operator."""
        modules: list[Any] = list(self)
        linear, norm, _ = modules
        return EvaluationStem.of_modules(linear, norm)
