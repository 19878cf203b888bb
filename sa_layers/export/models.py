"""Models to export: a network of this library, or the segmentor or classifier of an OpenMMLab config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models import SelfAttentionNetwork
from .errors import ExportError


class Logits(nn.Module):
    """An OpenMMLab model as a module that maps a normalised image to the logits of its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes) for classifiers, (N, classes, H / 4, W / 4) for most segmentors."""
        return self.model(image, mode="tensor")


def make_network(depth: int, attention: str, checkpoint: str | Path | None = None) -> SelfAttentionNetwork:
    """Make a SAN10, SAN15 or SAN19 in evaluation mode that returns the features of its last four stages.

    Args:
        depth: 10, 15 or 19.
        attention: 'pairwise' or 'patchwise'.
        checkpoint: File with the state dict. Defaults to None, which keeps random parameters.

    Raises:
        ExportError: If the checkpoint is missing or belongs to another network.
    """
    network = SelfAttentionNetwork(depth, attention, out_indices=(1, 2, 3, 4))
    if checkpoint is not None:
        _load(network, checkpoint)
    return network.eval()


def load_openmmlab(config: str | Path, checkpoint: str | Path | None = None) -> Logits:
    """Build the model of an mmseg or mmpretrain config in evaluation mode, from normalised image to logits.

    Args:
        config: Config file.
        checkpoint: Checkpoint file. Defaults to None, which keeps random parameters.

    Raises:
        ExportError: If OpenMMLab is not installed, a file is missing, the config has no model or belongs to another
            toolbox, or the checkpoint belongs to another model.
    """
    try:
        from mmengine.config import Config
        from mmengine.registry import MODELS, DefaultScope
    except ModuleNotFoundError as error:
        raise ExportError(f"configs need OpenMMLab, but {error.name} is not installed") from error
    if not Path(config).is_file():
        raise ExportError(f"there is no config {str(config)!r}")
    settings = Config.fromfile(config)
    scope = settings.get("default_scope")
    if "model" not in settings or scope not in ("mmseg", "mmpretrain"):
        raise ExportError(f"{str(config)!r} must be a config of mmseg or mmpretrain with a model, got scope {scope!r}")
    if "data_preprocessor" in settings:  # in mmpretrain's configs it is outside of the model
        settings.model.setdefault("data_preprocessor", settings.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings.model)
    if checkpoint is not None:
        _load(model, checkpoint)
    if scope == "mmseg":
        _replace_upsampling(model)
    return Logits(model).eval()


def _replace_upsampling(model: nn.Module) -> None:
    """Replace mmseg's Upsample by torch's. mmseg's converts sizes to int, which prevents dynamic image sizes."""
    from mmseg.models.utils import Upsample

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Upsample) and not child.size:
                upsample = nn.Upsample(
                    scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners
                )
                setattr(parent, name, upsample)


def _load(model: nn.Module, checkpoint: str | Path) -> None:
    if not Path(checkpoint).is_file():
        raise ExportError(f"there is no checkpoint {str(checkpoint)!r}")
    # Checkpoints of mmengine contain its own classes, which weights_only=True rejects.
    loaded: Any = torch.load(checkpoint, map_location="cpu", weights_only=False)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        difference = str(error).splitlines()[1].strip()[:300]
        raise ExportError(f"checkpoint {str(checkpoint)!r} belongs to another model: {difference}") from error
