"""Loading of checkpoints that ``init_cfg=dict(type='Pretrained', ...)`` names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mmengine.fileio import get_local_path
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.model.weight_init import update_init_info
from mmengine.runner.checkpoint import load_state_dict

from sa_layers.checkpoints import MismatchError, read_state_dict
from sa_layers.checkpoints.layouts import find_layouts
from sa_layers.checkpoints.matching import below, first

HUBS = ("torchvision://", "pavi://", "openmmlab://", "open-mmlab://", "modelzoo://", "mmcls://")
"""Names of checkpoints that mmengine looks up and downloads."""


class PretrainedBackbone(BaseModule):
    """A backbone whose ``init_cfg`` loads checkpoints by :func:`load_pretrained` instead of mmengine's loader.

    mmengine's executes code from a file that is not read otherwise, and only warns of what does not fit.
    """

    init_cfg: dict[str, Any] | list[dict[str, Any]] | None
    _is_init: bool

    def init_weights(self) -> None:
        """Initialise the backbone as ``init_cfg`` says, and load its checkpoint last."""
        if self._is_init:
            super().init_weights()  # mmengine logs a warning
            return
        given = self.init_cfg
        configs = [given] if isinstance(given, dict) else list(given or [])
        pretrained = [config for config in configs if _is_loaded_here(config)]
        self.init_cfg = [config for config in configs if config not in pretrained]
        try:
            super().init_weights()
        finally:
            self.init_cfg = given
        self._is_init = False  # until the checkpoint is loaded
        for config in pretrained:
            load_pretrained(self, **{name: value for name, value in config.items() if name != "type"})
        self._is_init = True


def _is_loaded_here(config: dict[str, Any]) -> bool:
    kind = config["type"]
    is_pretrained = kind is PretrainedInit or str(kind).split(".")[-1] == "Pretrained"  # or 'mmengine.Pretrained'
    return is_pretrained and not str(config["checkpoint"]).startswith(HUBS)


def load_pretrained(
    backbone: BaseModule, checkpoint: str | Path, prefix: str | None = None, map_location: str = "cpu"
) -> None:
    """Load a backbone from a checkpoint that may be one of a whole model, in any layout.

    Args:
        backbone: Backbone that is changed in place.
        checkpoint: File or URL, as :func:`sa_layers.checkpoints.read_state_dict` reads it.
        prefix: Prefix of the backbone's tensors in the checkpoint. It can be omitted if the checkpoint contains one
            network, and 'backbone.' stands for the network of other layouts too. Defaults to None.
        map_location: Accepted as mmengine does; tensors are copied to the device of the backbone anyway.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If the file cannot be read or has no state dict.
        MismatchError: If the checkpoint does not fit the backbone. The message says how.
    """
    is_url = "://" in str(checkpoint)
    source = str(checkpoint if is_url else Path(checkpoint).expanduser())
    if not is_url and not Path(source).is_file():
        raise FileNotFoundError(f"{checkpoint} can not be found.")
    print_log(f"load model from: {checkpoint}", logger="current")
    with get_local_path(source) as path:
        state = read_state_dict(path)
    if prefix is not None:
        start = prefix.removesuffix(".") + "."
        if below(state, start):
            state = below(state, start)
        elif start != "backbone." or not find_layouts(state):
            raise MismatchError(f"{checkpoint} has no tensor whose name begins with {start}: it has {first(state)}")
    try:
        load_state_dict(backbone, state, strict=False, logger="current")
    except MismatchError as error:
        raise MismatchError(f"{checkpoint} does not fit {type(backbone).__name__}: {error}") from error
    if hasattr(backbone, "_params_init_info"):
        update_init_info(backbone, init_info=f"PretrainedInit: load from {checkpoint}")


def is_called_by_mmengine() -> bool:
    """Whether the caller, a ``_load_from_state_dict``, is called by mmengine and not by torch.

    mmengine loads checkpoints of whole models without ``strict``, and so the weights of ``load_from`` and of
    tools/test.py: what does not fit is a warning. Nothing in the arguments of the call tells it from
    ``load_state_dict(..., strict=False)``, with which users load a part on purpose.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_name == "_load_from_state_dict" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_globals.get("__name__") == load_state_dict.__module__
