"""Conversion of checkpoints between the official code and sa_layers: ``python -m sa_layers.convert SRC DST``."""

from ..checkpoints import CheckpointError as CheckpointError
from .architecture import Architecture
from .conversion import convert_checkpoint

__all__ = ["Architecture", "convert_checkpoint"]
