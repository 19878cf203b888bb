"""The network in evaluation, channels last.

The first stages have the largest maps and the fewest channels. They process the images of a batch one by one: the
output of an operator is then still in the cache when the next one reads it, and no memory is allocated for the maps of
the whole batch, which the operating system would have to map page by page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...ops.pooled_projection import native_pooled_projection
from ...ops.projection import Linear
from .parameters import Folded
from .stage import EvaluationStage

LARGE_MAP = 2**21  # bytes: about the size of a core's own cache
POOLING_NORMS = {"cuda"}  # devices on which a stage's pooling also applies the previous stage's norm: one pass less


class EvaluationStem(NamedTuple):
    """The plan of the stem: a linear layer and the number of its frozen norm, before 2x2 pooling."""

    linear: Linear
    norm: int

    def operands(self, folded: Folded) -> tuple[Tensor, Tensor]:
        """Weight and shift of :func:`sa_layers.ops.pooled_projection.pooled_projection`: the norm multiplied in."""
        (scale, shift), (bias,) = folded.norms[self.norm], self.linear.biases
        weight = self.linear.weights[0].flatten(1) * scale.unsqueeze(1)
        return weight.t(), shift if bias is None else torch.addcmul(shift, scale, bias)


class EvaluationNetwork(NamedTuple):
    """The plan of a network."""

    stem: EvaluationStem
    stages: list[EvaluationStage]
    """All stages, with poolings that are operators; the pooling of the first is part of the stem's operator."""
    out_indices: tuple[int, ...]
    """The stages whose features are returned, ascending."""

    def evaluate(self, folded: Folded, image: Tensor) -> Iterator[Tensor]:
        """Computes the features of some stages.

        Args:
            folded: The norms and positions of this call.
            image: (N, in_channels, H, W).

        Yields:
            (N, H, W, channels), for each of them.
        """
        out_indices = self.out_indices
        stages, stem = [stage.prepared(folded) for stage in self.stages], self.stem.operands(folded)
        single = stages_of_single_images(image, stages, out_indices)
        normed = [image.device.type not in POOLING_NORMS or index in out_indices for index in range(len(stages))]
        if single == 0:
            pixels = stages[0].compute(native_pooled_projection(image, *stem), folded, pooled=True, normed=normed[0])
        else:
            for index, one in enumerate(image.split(1)):
                features = stages[0].compute(native_pooled_projection(one, *stem), folded, pooled=True)
                for stage in stages[1:single]:
                    features = stage.compute(features, folded)
                if index == 0:
                    pixels = stages[single].new_pixels(features, len(image))
                stages[single].enter(features, pixels[index : index + 1])
            stages[single].attend(pixels, folded, normed[single])
        if single in out_indices:
            yield pixels
        for index in range(single + 1, max(out_indices) + 1):
            prologue = None if normed[index - 1] else folded.norms[stages[index - 1].norm]
            pixels = stages[index].compute(pixels, folded, prologue=prologue, normed=normed[index])
            if index in out_indices:
                yield pixels

    def sizes(self, image: Tensor) -> Iterator[tuple[int, ...]]:
        """Yield the shapes of what :meth:`evaluate` yields."""
        height, width = image.shape[2:]
        for index, stage in enumerate(self.stages):
            height, width = height // stage.stride, width // stage.stride
            if index in self.out_indices:
                yield image.shape[0], height, width, stage.transition.channels


def stages_of_single_images(image: Tensor, stages: Sequence[EvaluationStage], out_indices: Collection[int]) -> int:
    """The number of first stages that process images one by one; their features are not returned.

    Example:
        >>> stages_of_single_images(torch.zeros(1, 3, 224, 224), [], [4])
        0
    """
    if len(image) == 1 or image.device.type != "cpu" or torch.compiler.is_compiling():
        return 0
    height, width = image.shape[-2:]
    for index, stage in enumerate(stages):
        height, width = height // stage.stride, width // stage.stride
        large = height * width * stage.transition.channels * image.element_size() > LARGE_MAP
        if not large or index in out_indices:
            return index
    return 0
