"""Models to export: a network of this library, or the model of an OpenMMLab config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..checkpoints import CheckpointError, load_checkpoint
from ..models import SelfAttentionNetwork
from ..openmmlab_configs import build_model, read_config
from .errors import ExportError


class Logits(nn.Module):
    """An OpenMMLab model as a module that maps a normalised image to the logits of its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes) for classifiers, (N, classes, H / 4, W / 4) for most segmentors."""
        return self.model(image, mode="tensor")


class Features(nn.Module):
    """An OpenMMLab detector as a module that maps a normalised image to the maps of its backbone and neck.

    Its heads compute boxes by operators of mmcv, which mmdeploy exports.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) -> maps (N, C, H / stride, W / stride), finest first."""
        extract: Any = self.model.extract_feat
        return tuple(extract(image))


WRAPPERS: dict[str, type[Logits | Features]] = {"mmseg": Logits, "mmpretrain": Logits, "mmdet": Features}
"""The wrapper by which the model of each toolbox is exported."""


def make_network(
    depth: int, attention: str, checkpoint: str | Path | None = None, trust: bool = False
) -> SelfAttentionNetwork:
    """Make a SAN10, SAN15 or SAN19 in evaluation mode that returns the features of its last four stages.

    Args:
        depth: 10, 15 or 19.
        attention: 'pairwise' or 'patchwise'.
        checkpoint: Checkpoint file in any layout of a SAN. Defaults to None, which keeps random parameters.
        trust: Whether to unpickle objects of any class in the checkpoint, which executes code that the file chooses.
            Defaults to False.

    Raises:
        ExportError: If the checkpoint is missing, needs ``trust`` or belongs to another network.
    """
    network = SelfAttentionNetwork(depth, attention, out_indices=(1, 2, 3, 4))
    if checkpoint is not None:
        _load(network, checkpoint, trust)
    return network.eval()


def load_openmmlab(config: str | Path, checkpoint: str | Path | None = None, trust: bool = False) -> Logits | Features:
    """Build the model of an OpenMMLab config in evaluation mode, as a module that takes a normalised image.

    Args:
        config: Config file of mmseg or mmpretrain, whose model returns logits, or of mmdet, whose model returns the
            maps of its backbone and neck.
        checkpoint: Checkpoint file. Defaults to None, which keeps random parameters.
        trust: Whether to unpickle objects of any class in the checkpoint, which executes code that the file chooses.
            Defaults to False.

    Raises:
        ConfigError: If the config is missing or has no model, or its model cannot be built.
        ExportError: If the config belongs to another toolbox, or the checkpoint is missing, needs ``trust`` or belongs
            to another model.
        MissingPackageError: If OpenMMLab is not installed.
    """
    settings = read_config(config)
    scope = settings.get("default_scope")
    if scope not in WRAPPERS:
        raise ExportError(f"config {config} must be one of {', '.join(WRAPPERS)}, got scope {scope!r}")
    model = build_model(settings)
    if checkpoint is not None:
        _load(model, checkpoint, trust)
    if scope == "mmseg":
        _replace_upsampling(model)
    return WRAPPERS[scope](model).eval()


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


def _load(model: nn.Module, checkpoint: str | Path, trust: bool) -> None:
    try:
        load_checkpoint(model, checkpoint, trust)
    except CheckpointError as error:
        raise ExportError(str(error)) from error
