"""An mmengine hook that draws attention weights during training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from torch import Tensor

from ..registry import HOOKS
from .drawing import draw_weights
from .errors import VisualizationError
from .geometry import check_pixel
from .openmmlab import preprocess
from .pixels import choose_pixels
from .weights import attention_weights, last_of_each_stage


@MMENGINE_HOOKS.register_module()
@HOOKS.register_module()
class AttentionVisualizationHook(Hook):
    """Hook that periodically draws the attention weights of every stage with the runner's visualizer.

    Add ``custom_hooks = [dict(type='sa_layers.AttentionVisualizationHook', interval=500)]`` to a config. Backends of
    the visualizer store the pictures; ``LocalVisBackend`` writes ``vis_data/vis_image/attention_500.png``. Training is
    not affected: the weights are computed in evaluation mode, without gradients and only on the main process.

    Args:
        interval: Number of iterations between pictures. Defaults to 500.
        image: Image file that is drawn every time. Defaults to None, the first image of the current batch.
        pixels: Pixels (x, y) at which weights are drawn. Defaults to None, a pixel on an edge and a pixel in a flat
            region.

    Raises:
        ValueError: If ``interval`` is not positive, the image cannot be read, or a pixel lies outside of the image.
    """

    priority = "LOW"  # runs after the optimizer step and the logging

    def __init__(
        self, interval: int = 500, image: str | Path | None = None, pixels: Sequence[tuple[int, int]] | None = None
    ) -> None:
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(f"interval must be a positive integer, got {interval!r}")
        self.interval = interval
        self.image = None
        if image is not None:
            self.image = cv2.imread(str(image), cv2.IMREAD_COLOR) if Path(image).is_file() else None
            if self.image is None:
                raise VisualizationError(f"image {image} is missing or is not an image")
        self.pixels = {f"pixel {number}": (int(x), int(y)) for number, (x, y) in enumerate(pixels or [], start=1)}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Draw every ``interval`` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self.draw(runner, data_batch)

    @master_only
    def draw(self, runner: Any, data_batch: Any) -> None:
        """Add a picture to the runner's visualizer."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        image = self.image if self.image is not None else as_photograph(data_batch["inputs"][0])
        for pixel in self.pixels.values():
            check_pixel(pixel, image.shape[:2])
        layers = last_of_each_stage(attention_weights(model, preprocess(model, image)))
        rgb = np.ascontiguousarray(image[..., ::-1])
        picture = draw_weights(rgb, layers, self.pixels or choose_pixels(rgb))
        runner.visualizer.add_image("attention", picture, step=runner.iter + 1)


def as_photograph(inputs: Tensor) -> np.ndarray:
    """Convert an image of a batch, (3, H, W), to a uint8 array (H, W, 3)."""
    return np.ascontiguousarray(inputs.detach().cpu().numpy().transpose(1, 2, 0).clip(0, 255).astype(np.uint8))
