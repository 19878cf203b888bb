"""Writing of checkpoint files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import CheckpointError
from ..checkpoints.reading import NOT_INSTALLED
from ..output_file import OutputError, check_output, output_file

SAFETENSORS = ".safetensors"


def check_destination(source: Path, destination: Path) -> None:
    """Check the destination before any work is done.

    Raises:
        CheckpointError: If ``destination`` is the source or cannot be written.
    """
    if destination.suffix == SAFETENSORS and find_spec("safetensors") is None:
        raise CheckpointError(f"cannot write {destination}: {NOT_INSTALLED}")
    with _as_checkpoint_error():
        check_output(destination)
        if destination.exists() and source.exists() and destination.samefile(source):
            raise CheckpointError(f"{destination} is the source: choose another destination")


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, which replaces ``path`` when it is complete.

    Args:
        checkpoint: Checkpoint with the entry 'state_dict'. A file of safetensors has no other entries.
        path: File to write, of safetensors if it ends in .safetensors.

    Raises:
        CheckpointError: If the file cannot be written. An existing file at ``path`` is not changed in this case.
    """
    # In memory first: torch's own writer of files can abort the process after its disk was full.
    content = _safetensors(checkpoint["state_dict"]) if path.suffix == SAFETENSORS else _torch(checkpoint)
    with _as_checkpoint_error(), output_file(path) as partial:
        partial.write_bytes(content)


def _torch(checkpoint: dict[str, Any]) -> memoryview:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getbuffer()


def _safetensors(state: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: values.contiguous() for name, values in state.items()}, {"format": "pt"})


@contextmanager
def _as_checkpoint_error() -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        raise CheckpointError(str(error)) from error
