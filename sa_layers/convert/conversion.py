"""A checkpoint file of the official code into one of ours, and back."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from ..version import __version__
from .architecture import Architecture, recognise
from .errors import CheckpointError
from .files import check_destination, read_state, write
from .names import to_official, to_ours

WRAPPER = "module."  # of DistributedDataParallel and DataParallel, in which the official code trains


def convert_checkpoint(
    source: str | PathLike[str], destination: str | PathLike[str], official: bool = False
) -> Architecture:
    """Renames the tensors of a checkpoint; their values, dtypes and order stay as they are.

    Args:
        source: A checkpoint of the official code, ``{'state_dict': {'module.conv_in.weight': ..., ...}, ...}`` (with or
            without 'module.', or the bare state dict); with ``official``, one of a classifier of ours.
        destination: The file to write. ``{'state_dict': {'backbone.stem.0.weight': ..., 'head.fc.weight': ...},
            'meta': ...}``, as mmpretrain's classifiers load it and other tasks' backbones by ``init_cfg=dict(
            type='Pretrained', checkpoint=..., prefix='backbone.')``; with ``official``, ``{'state_dict':
            {'module.conv_in.weight': ...}}``.
        official: Convert ours into the official instead. Defaults to False.

    Returns:
        The network that was recognised.

    Raises:
        CheckpointError: The source is no whole checkpoint of such a network, or the destination cannot be written.
            Nothing is written then.
    """
    source, destination = Path(source), Path(destination)
    check_destination(source, destination)
    state = read_state(source)
    try:
        ours = _by_our_names(state, official)
        architecture = recognise(ours, str if official else to_official)
    except ValueError as error:
        wanted = "a classifier of ours" if official else "an official network"
        raise CheckpointError(f"{source} is no checkpoint of {wanted}: {error}") from error
    if official:
        write({"state_dict": {WRAPPER + to_official(name): values for name, values in ours.items()}}, destination)
    else:
        write({"state_dict": ours, "meta": _meta(architecture)}, destination)
    return architecture


def _by_our_names(state: dict[str, Tensor], ours: bool) -> dict[str, Tensor]:
    if ours:
        return {to_ours(to_official(name)): values for name, values in state.items()}
    wrapped = all(name.startswith(WRAPPER) for name in state)
    return {to_ours(name.removeprefix(WRAPPER) if wrapped else name): values for name, values in state.items()}


def _meta(architecture: Architecture) -> dict[str, Any]:
    return {"sa_layers_version": __version__, "backbone": architecture.backbone, "num_classes": architecture.classes}
