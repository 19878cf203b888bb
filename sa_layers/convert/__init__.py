"""Conversion of checkpoints between the official code and sa_layers: ``python -m sa_layers.convert SRC DST``."""

from .architecture import Architecture
from .conversion import convert_checkpoint
from .errors import CheckpointError

__all__ = ["Architecture", "CheckpointError", "convert_checkpoint"]
