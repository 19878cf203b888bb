"""The network in training: steps between the blocks, which are called as modules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from ..channels_last import in_format_of
from .function import read_instead, run
from .norm import TrainingNorm
from .stem import StemStep
from .transition import NormStep, TransitionStep


class StagePlan(NamedTuple):
    """A stage whose own modules are not called."""

    pool: Callable[[Tensor], Tensor] | None
    """A pooling that must be called before the transition."""
    pools: bool
    """Whether the transition pools."""
    transition: TransitionStep
    blocks: Callable[[Tensor], Tensor]
    """Calls the blocks."""
    norm: TrainingNorm


class NetworkPlan(NamedTuple):
    """The plan of a network in training."""

    stem: StemStep | None
    """The stem with the pooling of the first stage, or None if ``call_stem`` must be called."""
    call_stem: Callable[[Tensor], Tensor]
    stages: Sequence[StagePlan | Callable[[Tensor], Tensor]]
    """A stage that is watched, or of which a part is not eligible, is called as a module."""

    def compute(self, image: Tensor, out_indices: Collection[int]) -> Iterator[Tensor]:
        """Yield the features of some stages, (N, channels, H, W), in the memory format of the image."""
        features = self.call_stem(image) if self.stem is None else run(self.stem, image)
        pooled, norm = self.stem is not None, None
        for index, stage in enumerate(self.stages):
            if isinstance(stage, StagePlan):
                if stage.pool is not None and not pooled:
                    features, norm = stage.pool(features if norm is None else run(NormStep(norm), features)), None
                transition = stage.transition._replace(norm=norm, pools=stage.pools and not pooled)
                features, norm = stage.blocks(run(transition, features)), stage.norm
            else:
                features, norm = stage(features if norm is None else run(NormStep(norm), features)), None
            pooled = False
            if index in out_indices:
                features, norm = features if norm is None else run(NormStep(norm), features), None
                output = in_format_of(image, features)
                yield output
                features = features if output is features else read_instead(output, features)
