"""Models of OpenMMLab for the pictures: built from a config, given a checkpoint, fed an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from mmengine.structures import BaseDataElement
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import VisualizationError


def load_model(config: str | Path, checkpoint: str | Path | None = None) -> nn.Module:
    """Builds the model of a config as its toolbox's tools do, in evaluation mode.

    Args:
        config: A config file of mmseg, mmdet or mmpretrain.
        checkpoint: Its trained parameters: a file, or an address that mmengine loads from. Without one the model is
            initialised as for training, the same at every call.

    Raises:
        VisualizationError: The config is missing or has no model, or the checkpoint is missing or of another network.
    """
    if not Path(config).is_file():
        raise VisualizationError(f"config {config} is no file")
    settings = Config.fromfile(config)
    if "model" not in settings:
        raise VisualizationError(f"config {config} has no model")
    if "data_preprocessor" in settings:  # mmpretrain writes it beside the model, and the runner puts it in
        settings.model.setdefault("data_preprocessor", settings.data_preprocessor)
    scope = settings.get("default_scope", "mmengine")
    with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        model = MODELS.build(settings.model)
        if checkpoint is None and hasattr(model, "init_weights"):
            model.init_weights()
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    return model.eval()


def load_checkpoint(model: nn.Module, checkpoint: str | Path) -> None:
    """Loads all parameters of a model, or says how the checkpoint's differ; what it has beyond them is left out."""
    try:
        with quiet():
            loaded = CheckpointLoader.load_checkpoint(str(checkpoint), map_location="cpu")
    except FileNotFoundError as error:
        raise VisualizationError(f"checkpoint {checkpoint} is no file") from error
    except Exception as error:  # pickle, zip and torch each raise their own
        raise VisualizationError(f"checkpoint {checkpoint} cannot be read: {error}".splitlines()[0]) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    state = {name.removeprefix("module."): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    if missing or reshaped:
        example = f"it lacks {missing[0]}" if missing else _shapes(reshaped[0], state, own)
        raise VisualizationError(
            f"checkpoint {checkpoint} is of another network than the config's: of {len(own)} tensors {len(missing)} "
            f"are missing and {len(reshaped)} of another shape (for example, {example})"
        )
    model.load_state_dict(state, strict=False)


def preprocess(model: nn.Module, image: NDArray[np.uint8] | Tensor) -> Tensor:
    """Normalises and pads one image with the model's own data preprocessor: -> (1, 3, H, W).

    Args:
        model: A model of OpenMMLab.
        image: What the pipeline's loading gives: (H, W, 3) BGR, or its (3, H, W) tensor.
    """
    preprocessor: Any = getattr(model, "data_preprocessor", None)
    if preprocessor is None:
        raise VisualizationError(f"{type(model).__name__} has no data preprocessor, as models of OpenMMLab have")
    inputs = image if isinstance(image, Tensor) else torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    batch = preprocessor({"inputs": [inputs], "data_samples": [BaseDataElement()]}, False)
    return batch["inputs"]


@contextmanager
def quiet() -> Iterator[None]:
    """Without mmengine's notes, such as how it initialised each parameter; warnings are shown."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _shapes(name: str, state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    return f"{name} is {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
