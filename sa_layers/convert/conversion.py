"""Conversion of checkpoint files of any layout to OpenMMLab's layout or that of the official code."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..checkpoints import CheckpointError, read_state_dict, rename
from ..checkpoints.layouts import Layout, find_layouts
from ..checkpoints.matching import first
from ..checkpoints.names import to_official
from ..version import __version__
from .architecture import Architecture, detect
from .files import check_destination, write

WRAPPER = "module."  # prefix added by DistributedDataParallel and DataParallel, which the official code uses


def convert_checkpoint(
    source: str | PathLike[str], destination: str | PathLike[str], official: bool = False, trust: bool = False
) -> Architecture:
    """Convert a checkpoint by renaming its tensors. Their values, dtypes and order do not change.

    The source can have any layout: that of the official code, ``{'state_dict': {'module.conv_in.weight': ..., ...},
    ...}``, of mmpretrain's classifiers, of :class:`~sa_layers.models.SelfAttentionClassifier`, or of a network alone.
    Everything that is not part of its state dict, such as the state of an optimizer, is left out.

    The result has OpenMMLab's layout, ``{'state_dict': {'backbone.stem.0.weight': ..., 'head.fc.weight': ..., ...},
    'meta': ...}``. mmpretrain's classifiers load it directly, and backbones of other tasks with
    ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.

    Args:
        source: Checkpoint file to convert, of ``torch.save`` or safetensors.
        destination: Checkpoint file to write. A name that ends in .safetensors is one of safetensors, without ``meta``.
        official: Whether to write the layout of the official code instead. Defaults to False.
        trust: Whether to unpickle objects of any class, which executes code that the file chooses. Defaults to False.

    Returns:
        The detected network.

    Raises:
        CheckpointError: If the source is not a complete checkpoint of such a network, or the destination cannot be
            written. Nothing is written in this case.
    """
    source, destination = Path(source), Path(destination)
    check_destination(source, destination)
    state = read_state_dict(source, trust)
    ours = rename(state)
    try:
        layout = _layout(list(state))
        architecture = detect(ours, _official_name if layout.official else str)
        if not architecture.classes and (official or layout.official):
            raise CheckpointError(
                f"{'fc' if layout.official else 'head.fc'}.weight, the weight of the head, is missing"
            )
    except ValueError as error:
        raise CheckpointError(f"{source} is not a checkpoint of a SAN classifier or network: {error}") from error
    if official:
        write({"state_dict": {WRAPPER + to_official(name): values for name, values in ours.items()}}, destination)
    else:
        write({"state_dict": ours, "meta": _meta(architecture)}, destination)
    return architecture


def _layout(names: list[str]) -> Layout:
    layouts = find_layouts(names)
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        prefixes = ", ".join(repr(layout.network) for layout in layouts)
        raise CheckpointError(f"it must contain one network, but it has one under each of the prefixes {prefixes}")
    raise CheckpointError(f"it has no tensor of one: its tensors are {first(names)}")


def _official_name(name: str) -> str:
    try:
        return to_official(name)
    except ValueError:
        return name


def _meta(architecture: Architecture) -> dict[str, Any]:
    return {"sa_layers_version": __version__, "backbone": architecture.backbone, "num_classes": architecture.classes}
