"""Subsets of a module that a training step leaves alone."""

from __future__ import annotations

import random

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SUBSETS = ("none", "norms", "norms in evaluation", "any", "input only", "all but one", "first half")


def freeze(module: nn.Module, subset: str, dice: random.Random) -> None:
    """Set ``requires_grad`` of parameters and the mode of norms; a module that is frozen stays so.

    - none: everything is trained with batch statistics;
    - norms: none of their parameters is trained;
    - norms in evaluation: as by ``norm_eval``, their parameters are trained;
    - any: each parameter and the mode of each norm by chance;
    - input only: no parameter is trained;
    - all but one: one parameter is trained;
    - first half: the parameters and the norms that come first, as by ``frozen_stages``.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    parameters = list(module.parameters())
    if subset == "norms":
        for norm in norms:
            norm.requires_grad_(False)
    elif subset == "norms in evaluation":
        for norm in norms:
            norm.eval()
    elif subset == "any":
        for parameter in parameters:
            parameter.requires_grad_(parameter.requires_grad and dice.random() < 0.6)
        for norm in norms:
            norm.train(norm.training and dice.random() < 0.7)
    elif subset == "input only":
        module.requires_grad_(False)
    elif subset == "all but one":
        trained = dice.choice(parameters)
        for parameter in parameters:
            parameter.requires_grad_(parameter is trained)
    elif subset == "first half":
        for parameter in parameters[: len(parameters) // 2]:
            parameter.requires_grad_(False)
        for norm in norms[: len(norms) // 2]:
            norm.eval()
