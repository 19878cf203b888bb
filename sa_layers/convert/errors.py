"""Errors of the conversion."""

from ..errors import ReportedError


class CheckpointError(ReportedError, ValueError):
    """A checkpoint cannot be read, converted or written. The message names the file and the reason."""
