"""Errors of checkpoints."""

from ..errors import ReportedError


class CheckpointError(ReportedError, ValueError):
    """A checkpoint cannot be read, converted or written. The message gives the reason."""


class MismatchError(CheckpointError, RuntimeError):
    """A checkpoint belongs to another network. It is also a RuntimeError, as ``load_state_dict`` raises."""
