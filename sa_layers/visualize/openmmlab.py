"""Construction of OpenMMLab models from configs and checkpoints, and preprocessing of their images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor, nn

from ..openmmlab_configs import build_model, read_config
from .errors import VisualizationError


def load_model(config: str | Path, checkpoint: str | Path | None = None) -> nn.Module:
    """Build the model of a config in evaluation mode.

    Args:
        config: Config file of mmseg, mmdet or mmpretrain.
        checkpoint: Checkpoint file or URL. Defaults to None, which initialises the model as for training, with a fixed
            random seed.

    Raises:
        ConfigError: If the config is missing or has no model, or its model cannot be built or initialised.
        VisualizationError: If the checkpoint is missing or belongs to another network.
    """
    settings = read_config(config)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        model = build_model(settings, initialise=checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return model.eval()


def load_checkpoint(model: nn.Module, checkpoint: str | Path) -> None:
    """Load a checkpoint, which may have additional tensors.

    Raises:
        VisualizationError: If the checkpoint cannot be read, or tensors of the model are missing or of another shape.
    """
    try:
        with quiet():
            loaded = CheckpointLoader.load_checkpoint(str(checkpoint), map_location="cpu")
    except FileNotFoundError as error:
        raise VisualizationError(f"checkpoint {checkpoint} is not a file") from error
    except Exception as error:  # pickle, zipfile and torch raise errors of different types
        raise VisualizationError(f"checkpoint {checkpoint} cannot be read: {error}".splitlines()[0]) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    state = {name.removeprefix("module."): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or reshaped:
        example = f"{missing[0]} is missing" if missing else _shapes(reshaped[0], state, own)
        raise VisualizationError(
            f"checkpoint {checkpoint} does not match the config: of {len(own)} tensors, {len(missing)} are missing and "
            f"{len(reshaped)} have another shape (for example, {example})"
        )
    model.load_state_dict(state, strict=False)


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


def _shapes(name: str, state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    return f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
