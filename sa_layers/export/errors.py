"""Errors of the export."""

from ..errors import ReportedError


class ExportError(ReportedError, ValueError):
    """A model, checkpoint, format or file cannot be used. The message gives the reason."""

    exit_status = 2
