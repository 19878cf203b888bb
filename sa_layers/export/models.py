"""What can be exported: a network of this library, or the segmentor or classifier of an OpenMMLab config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models import SelfAttentionNetwork
from .errors import ExportError


class Logits(nn.Module):
    """A model of OpenMMLab as a function of one tensor: from a normalised image to the logits of its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes) of a classifier, (N, classes, H / 4, W / 4) of most segmentors."""
        return self.model(image, mode="tensor")


def make_network(depth: int, attention: str, checkpoint: str | Path | None = None) -> SelfAttentionNetwork:
    """A SAN10, SAN15 or SAN19 that returns its last four stages, in evaluation mode.

    Args:
        depth: 10, 15 or 19.
        attention: 'pairwise' or 'patchwise'.
        checkpoint: A file with its state dict. Defaults to None, random parameters.

    Raises:
        ExportError: The checkpoint is missing or of another network.
    """
    network = SelfAttentionNetwork(depth, attention, out_indices=(1, 2, 3, 4))
    if checkpoint is not None:
        _load(network, checkpoint)
    return network.eval()


def load_openmmlab(config: str | Path, checkpoint: str | Path | None = None) -> Logits:
    """The model of a config of mmseg or mmpretrain, from image to logits, in evaluation mode.

    Args:
        config: A config file.
        checkpoint: The file of its trained parameters. Defaults to None, random ones.

    Raises:
        ExportError: OpenMMLab is not installed, a file is missing, the config has no model or one whose raw outputs are
            no logits, or the checkpoint is of another model.
    """
    try:
        from mmengine.config import Config
        from mmengine.registry import MODELS, DefaultScope
    except ModuleNotFoundError as error:
        raise ExportError(f"a config needs OpenMMLab, and {error.name} is not installed") from error
    if not Path(config).is_file():
        raise ExportError(f"there is no config {str(config)!r}")
    settings = Config.fromfile(config)
    scope = settings.get("default_scope")
    if "model" not in settings or scope not in ("mmseg", "mmpretrain"):
        raise ExportError(f"{str(config)!r} must be a config of mmseg or mmpretrain with a model, got scope {scope!r}")
    if "data_preprocessor" in settings:  # mmpretrain writes it beside the model, and the runner puts it in
        settings.model.setdefault("data_preprocessor", settings.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(settings.model)
    if checkpoint is not None:
        _load(model, checkpoint)
    if scope == "mmseg":
        _free_upsampling(model)
    return Logits(model).eval()


def _free_upsampling(model: nn.Module) -> None:
    """Puts torch's upsampling where mmseg's is, which turns sizes into Python integers: a program would fix them."""
    from mmseg.models.utils import Upsample

    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Upsample) and not child.size:
                free = nn.Upsample(scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners)
                setattr(parent, name, free)


def _load(model: nn.Module, checkpoint: str | Path) -> None:
    if not Path(checkpoint).is_file():
        raise ExportError(f"there is no checkpoint {str(checkpoint)!r}")
    # mmengine stores its own classes beside the parameters, which weights_only would refuse
    loaded: Any = torch.load(checkpoint, map_location="cpu", weights_only=False)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        difference = str(error).splitlines()[1].strip()[:300]
        raise ExportError(f"checkpoint {str(checkpoint)!r} is of another model: {difference}") from error
