"""Reading of checkpoint files without executing code from them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import CheckpointError

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module")
"""Entries that hold the state dict, in the order of preference: like timm, the moving average first.

mmengine's ``EMAHook`` writes the moving average to 'state_dict' and what it was averaged from to 'ema_state_dict'."""

MAX_DEPTH = 4  # a dictionary can contain itself

COUNTERS = ("n_averaged", "steps")
"""Tensors of the moving averages of torch and mmengine that are not of the model."""

TRUST = "also read checkpoints that contain other objects than tensors, which executes code that the file chooses"
"""Help of the option --trust of the commands."""

NOT_INSTALLED = "safetensors is not installed: pip install 'sa-layers[safetensors]'"


class _Ignored:
    """Stands for an object that is not read. Creating it and setting its state have no effect."""

    def __new__(cls, *_: Any) -> _Ignored:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


IGNORED = (
    "mmengine.logging.history_buffer.HistoryBuffer",  # mmengine's message hub: histories of the losses
    "builtins.getattr",  # the methods in a HistoryBuffer
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
    "mmengine.config.config.Config",
    "mmengine.config.config.ConfigDict",
    "argparse.Namespace",  # the options of timm's and the authors' train.py
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"pathlib{module}.{name}" for module in ("", "._local") for name in ("Path", "PosixPath", "WindowsPath")),
)
"""Classes and functions that training programs write beside the tensors. Nothing of them is imported or called."""


def read_state_dict(path: str | PathLike[str], trust: bool = False) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file, with its tensors on the CPU.

    The file is one of ``torch.save`` or of safetensors. Its state dict is the entry 'state_dict_ema', 'model_ema',
    'state_dict', 'model', 'model_state_dict' or 'module', in this order, or else the whole file. Entries of the state
    dict that are not tensors are left out.

    No code from the file is executed: it is read with ``weights_only=True``, and what mmengine and other training
    programs write beside the tensors is skipped.

    Args:
        path: Checkpoint file.
        trust: Whether to unpickle objects of any class, which executes code that the file chooses. Only files with such
            objects need it, a whole model for example. Defaults to False.

    Returns:
        The tensors by name, in the order of the file.

    Raises:
        CheckpointError: If the file cannot be read, has no state dict, or needs ``trust``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 3}, f"{folder}/checkpoint.pth")
        ...     read_state_dict(f"{folder}/checkpoint.pth")
        {'weight': tensor([1., 1.])}
    """
    path = Path(path)
    try:
        checkpoint = _load_safetensors(path) if _is_safetensors(path) else _load(path, trust)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    state = _find_state(checkpoint)
    tensors = {
        name: values
        for name, values in state.items()
        if isinstance(name, str) and isinstance(values, Tensor) and name not in COUNTERS
    }
    if not tensors:
        raise CheckpointError(f"{path} contains no state dict")
    return tensors


def _find_state(checkpoint: Any) -> Mapping[Any, Any]:
    for _ in range(MAX_DEPTH):
        state = checkpoint.state_dict() if isinstance(checkpoint, nn.Module) else checkpoint
        if not isinstance(state, Mapping):
            return {}
        wrapped = [state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping | nn.Module)]
        if not wrapped:
            return state
        checkpoint = wrapped[0]
    return {}


def _load(path: Path, trust: bool) -> Any:
    try:
        with torch.serialization.safe_globals([(_Ignored, name) for name in IGNORED]):
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except OSError:
        raise
    except Exception as error:  # zipfile, pickle and torch raise errors of different types
        message = str(error)
        if found := re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message):
            raise CheckpointError(
                f"{path} contains more than tensors and plain values, such as {found[1]}, and reading it could execute "
                "code from the file; if you trust whoever wrote it, use --trust, or trust=True in Python"
            ) from error
        reason = f"{type(error).__name__}: {message}".splitlines()[0].split(". ")[0]
        raise CheckpointError(f"{path} is not an intact checkpoint of tensors and plain values: {reason}") from error


def _is_safetensors(path: Path) -> bool:
    """Whether the file begins like one of safetensors: with the length of a header, which is a JSON object."""
    with path.open("rb") as file:
        start = file.read(9)
        return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= os.fstat(file.fileno()).st_size - 8


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f"cannot read {path}: {NOT_INSTALLED}") from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not an intact checkpoint of tensors and plain values: {error}") from error
