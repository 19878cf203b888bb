"""Errors of the conversion."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read, converted or written. The message names the file and the reason."""
