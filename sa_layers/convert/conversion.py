"""Conversion of checkpoint files between the official code and sa_layers."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from ..version import __version__
from .architecture import Architecture, detect
from .errors import CheckpointError
from .files import check_destination, read_state, write
from .names import to_official, to_ours

WRAPPER = "module."  # prefix added by DistributedDataParallel and DataParallel, which the official code uses


def convert_checkpoint(
    source: str | PathLike[str], destination: str | PathLike[str], official: bool = False
) -> Architecture:
    """Convert a checkpoint by renaming its tensors. Their values, dtypes and order do not change.

    An official checkpoint is ``{'state_dict': {'module.conv_in.weight': ..., ...}, ...}``. As input, the prefix
    'module.' may be missing, or the file may contain only the state dict.

    Our checkpoint is ``{'state_dict': {'backbone.stem.0.weight': ..., 'head.fc.weight': ..., ...}, 'meta': ...}``.
    mmpretrain's classifiers load it directly. Backbones of other tasks load it with ``init_cfg=dict(type='Pretrained',
    checkpoint=..., prefix='backbone.')``.

    Args:
        source: Checkpoint file to convert.
        destination: Checkpoint file to write.
        official: Whether to convert our checkpoint to an official one. Defaults to False, the opposite direction.

    Returns:
        The detected network.

    Raises:
        CheckpointError: If the source is not a complete checkpoint of such a network, or the destination cannot be
            written. Nothing is written in this case.
    """
    source, destination = Path(source), Path(destination)
    check_destination(source, destination)
    state = read_state(source)
    try:
        ours = _with_our_names(state, official)
        architecture = detect(ours, str if official else to_official)
    except ValueError as error:
        expected = "an sa_layers classifier" if official else "an official network"
        raise CheckpointError(f"{source} is not a checkpoint of {expected}: {error}") from error
    if official:
        write({"state_dict": {WRAPPER + to_official(name): values for name, values in ours.items()}}, destination)
    else:
        write({"state_dict": ours, "meta": _meta(architecture)}, destination)
    return architecture


def _with_our_names(state: dict[str, Tensor], ours: bool) -> dict[str, Tensor]:
    if ours:  # names are translated twice to reject unknown ones
        return {to_ours(to_official(name)): values for name, values in state.items()}
    wrapped = all(name.startswith(WRAPPER) for name in state)
    return {to_ours(name.removeprefix(WRAPPER) if wrapped else name): values for name, values in state.items()}


def _meta(architecture: Architecture) -> dict[str, Any]:
    return {"sa_layers_version": __version__, "backbone": architecture.backbone, "num_classes": architecture.classes}
