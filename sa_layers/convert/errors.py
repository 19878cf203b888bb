"""What keeps a checkpoint from being converted."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, understood or written; the message names the file and says why."""
