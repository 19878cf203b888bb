"""Checkpoint files: read without running code that they may hold, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint, which is its entry 'state_dict' or the whole of it.

    Raises:
        CheckpointError: The file cannot be read, or holds something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile's, pickle's and torch's own, depending on what is broken
        reason = f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
        raise CheckpointError(f"{path} is not a whole checkpoint of tensors and plain values: {reason}") from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(values, Tensor) for values in state.values()):
        raise CheckpointError(f"{path} holds no state dict")
    return state


def check_destination(source: Path, destination: Path) -> None:
    """Refuses, before any work is done, to write over the source, into nothing or over a folder.

    Raises:
        CheckpointError: ``destination`` is one of these.
    """
    if destination.exists() and source.exists() and destination.samefile(source):
        raise CheckpointError(f"{destination} is the checkpoint to be converted itself: choose another destination")
    if destination.is_dir():
        raise CheckpointError(f"cannot write {destination}: it is a folder")
    if not destination.parent.is_dir():
        raise CheckpointError(f"cannot write {destination}: {destination.parent} is not a folder")


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes a file beside ``path`` and gives it the name only when it is whole.

    Raises:
        CheckpointError: The file cannot be written; what was at ``path`` is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save(checkpoint, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CheckpointError(f"cannot write {path}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
