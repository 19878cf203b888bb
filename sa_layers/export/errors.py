"""Errors of the export."""


class ExportError(ValueError):
    """A model, checkpoint, format or file cannot be used. The message gives the reason."""
