"""Writing of checkpoint files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import CheckpointError
from ..output_file import OutputError, check_output, output_file


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
