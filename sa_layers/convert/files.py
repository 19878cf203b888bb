"""Reading of checkpoint files without executing pickled code, and their writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..output_file import OutputError, check_output, output_file
from .errors import CheckpointError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint: its entry 'state_dict' or, without this entry, the whole checkpoint.

    Raises:
        CheckpointError: If the file cannot be read or contains no state dict.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile, pickle and torch raise errors of different types
        reason = f"{type(error).__name__}: {error}".splitlines()[0].split(". ")[0]
        raise CheckpointError(f"{path} is not an intact checkpoint of tensors and plain values: {reason}") from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(values, Tensor) for values in state.values()):
        raise CheckpointError(f"{path} contains no state dict")
    return state


def check_destination(source: Path, destination: Path) -> None:
    """Check the destination before any work is done.

    Raises:
        CheckpointError: If ``destination`` is the source or cannot be written.
    """
    with _as_checkpoint_error():
        check_output(destination)
        if destination.exists() and source.exists() and destination.samefile(source):
            raise CheckpointError(f"{destination} is the source: choose another destination")


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, which replaces ``path`` when it is complete.

    Raises:
        CheckpointError: If the file cannot be written. An existing file at ``path`` is not changed in this case.
    """
    with _as_checkpoint_error(), output_file(path) as partial:
        torch.save(checkpoint, partial)


@contextmanager
def _as_checkpoint_error() -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        raise CheckpointError(str(error)) from error
