"""The operator that computes the fused path of evaluation under torch.compile, which traces nothing inside it.

All tensors of the modules are its inputs, so compiled code that writes one of them computes with the new value.
torch.compile may pass constants, copies, or the same tensor twice. The plan is a constant: a text that is the same in
every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ...ops import Footprint
from ...ops.projection import Linear
from ..channels_last import in_format, to_channels_first
from ..description import Language
from .block import (
    EvaluationAttention,
    EvaluationBlock,
    FusedPairwiseAttention,
    FusedPatchwiseAttention,
    MappingPlan,
)
from .network import EvaluationNetwork, EvaluationStem
from .parameters import Folded, Parameters
from .stage import EvaluationStage


class EvaluationPlan(Protocol):
    """What a module computes in evaluation."""

    def evaluate(self, folded: Folded, *maps: Tensor) -> Iterator[Tensor]:
        """Yield (N, H, W, C) for each output, from the maps that the module is called with, (N, C, H, W)."""
        ...

    def sizes(self, *maps: Tensor) -> Iterator[tuple[int, ...]]:
        """Yield the shape of each output, (N, H, W, C)."""
        ...


class Evaluation(NamedTuple):
    """A plan and the parameters that it refers to by number."""

    plan: EvaluationPlan
    parameters: Parameters

    def compute(self, maps: Iterable[Tensor], channels_last: bool) -> list[Tensor]:
        """Compute the outputs, (N, C, H, W), channels last or contiguous."""
        outputs = self.plan.evaluate(self.parameters.fold(), *maps)
        return [in_format(to_channels_first(pixels), channels_last) for pixels in outputs]


LANGUAGE = Language(
    Evaluation,
    EvaluationAttention,
    EvaluationBlock,
    EvaluationNetwork,
    EvaluationStage,
    EvaluationStem,
    Footprint,
    FusedPairwiseAttention,
    FusedPatchwiseAttention,
    Linear,
    MappingPlan,
    Parameters,
)

_library = torch.library.Library("sa_layers", "FRAGMENT")
_library.define("evaluate(Tensor[] maps, Tensor[] tensors, str evaluation, bool channels_last) -> Tensor[]")


def _evaluate(maps: Sequence[Tensor], tensors: Sequence[Tensor], evaluation: str, channels_last: bool) -> list[Tensor]:
    restored: Evaluation = LANGUAGE.restore(evaluation, tensors)
    return restored.compute(maps, channels_last)


def _fake_evaluate(
    maps: Sequence[Tensor], tensors: Sequence[Tensor], evaluation: str, channels_last: bool
) -> list[Tensor]:
    restored: Evaluation = LANGUAGE.restore(evaluation, tensors)
    sizes = restored.plan.sizes(*maps)
    if channels_last:
        return [to_channels_first(maps[0].new_empty(size)) for size in sizes]
    return [maps[0].new_empty(size[0], size[3], *size[1:3]) for size in sizes]


_library.impl("evaluate", _evaluate, "CompositeExplicitAutograd")
torch.library.register_fake("sa_layers::evaluate", _fake_evaluate, lib=_library)
evaluate = torch.ops.sa_layers.evaluate.default
