"""Construction of OpenMMLab models from configs and checkpoints, and preprocessing of their images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor, nn

from ..checkpoints import CheckpointError, load_checkpoint
from ..openmmlab_configs import build_model, read_config
from .errors import VisualizationError


def load_model(config: str | Path, checkpoint: str | Path | None = None, trust: bool = False) -> nn.Module:
    """Build the model of a config in evaluation mode.

    Args:
        config: Config file of mmseg, mmdet or mmpretrain.
        checkpoint: Checkpoint file or URL. Defaults to None, which initialises the model as for training, with a fixed
            random seed.
        trust: Whether to unpickle objects of any class in the checkpoint, which executes code that the file chooses.
            Defaults to False.

    Raises:
        ConfigError: If the config is missing or has no model, or its model cannot be built or initialised.
        VisualizationError: If the checkpoint is missing, needs ``trust`` or belongs to another network.
    """
    settings = read_config(config)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        model = build_model(settings, initialise=checkpoint is None)
    if checkpoint is not None:
        try:
            with get_local_path(str(checkpoint)) as path:
                load_checkpoint(model, path, trust)
        except CheckpointError as error:
            raise VisualizationError(str(error)) from error
        except OSError as error:  # from a URL
            raise VisualizationError(f"cannot read {checkpoint}: {error}") from error
    return model.eval()


def preprocess(model: nn.Module, image: NDArray[np.uint8] | Tensor) -> Tensor:
    """Normalise and pad an image with the model's data preprocessor.

    Args:
        model: Model of an OpenMMLab toolbox.
        image: Image as loaded by the pipeline, a (H, W, 3) array or a (3, H, W) tensor in BGR order.

    Returns:
        Image tensor of shape (1, 3, H, W).

    Raises:
        VisualizationError: If the model has no data preprocessor, or it fails.
    """
    preprocessor: Any = getattr(model, "data_preprocessor", None)
    if preprocessor is None:
        raise VisualizationError(f"model must have a data preprocessor, but {type(model).__name__} has none")
    inputs = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    try:
        return preprocessor({"inputs": [inputs], "data_samples": [BaseDataElement()]}, False)["inputs"]
    except Exception as error:  # its arguments come from a config
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise VisualizationError(f"the data preprocessor fails for the image: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress mmengine's log messages below warnings, such as a line for the initialisation of every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)
