"""What cannot be exported, said in one sentence."""


class ExportError(ValueError):
    """The model, the checkpoint, the format or the file cannot be used; the message says why."""
