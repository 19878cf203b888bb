"""A whole network in evaluation, channels last.

The first stages have the largest maps and the fewest channels. They take the images of a batch one after the other, so
that what one operator writes is in the cache when the next one reads it, and no memory for the whole batch's maps is
asked of the system, which would hand it out page by page.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from ..ops.pooled_projection import pooled_projection
from .folded_stage import FoldedStage
from .stem import FoldedStem

LARGE_MAP = 2**21  # bytes: about what a core's own cache holds
POOLING_NORMS = {"cuda"}  # devices on which a norm is for the next stage's pooling to apply: a pass over the map less


def evaluate(
    image: Tensor, stem: FoldedStem, stages: Sequence[FoldedStage], out_indices: Collection[int]
) -> Iterator[Tensor]:
    """The features of some stages.

    Args:
        image: (N, in_channels, H, W).
        stem: The stem.
        stages: All stages, none with a pooling that must be called; the first one's belongs to the stem's operator.
        out_indices: The stages whose features are wanted, ascending.

    Yields:
        (N, H, W, channels), for every one of them.
    """
    alone = stages_of_one_image(image, stages, out_indices)
    normed = [image.device.type not in POOLING_NORMS or index in out_indices for index in range(len(stages))]
    if alone == 0:
        pixels = stages[0].evaluate(pooled_projection(image, *stem), pooled=True, normed=normed[0])
    else:
        for index, one in enumerate(image.split(1)):
            features = stages[0].evaluate(pooled_projection(one, *stem), pooled=True)
            for stage in stages[1:alone]:
                features = stage.evaluate(features)
            if index == 0:
                pixels = stages[alone].new_pixels(features, len(image))
            stages[alone].enter(features, pixels[index : index + 1])
        stages[alone].attend(pixels, normed[alone])
    if alone in out_indices:
        yield pixels
    for index in range(alone + 1, max(out_indices) + 1):
        before = None if normed[index - 1] else stages[index - 1].norm
        pixels = stages[index].evaluate(pixels, before=before, normed=normed[index])
        if index in out_indices:
            yield pixels


def stages_of_one_image(image: Tensor, stages: Sequence[FoldedStage], out_indices: Collection[int]) -> int:
    """How many of the first stages take the images one after the other; their features are not wanted.

    Example:
        >>> stages_of_one_image(torch.zeros(1, 3, 224, 224), [], [4])
        0
    """
    if len(image) == 1 or image.device.type != "cpu" or torch.compiler.is_compiling():
        return 0
    height, width = image.shape[-2:]
    for index, stage in enumerate(stages):
        height, width = height // (stage.stride or 1), width // (stage.stride or 1)
        large = height * width * stage.transition.channels * image.element_size() > LARGE_MAP
        if not large or index in out_indices:
            return index
    return 0
