"""Errors of the visualization."""

from ..errors import ReportedError


class VisualizationError(ReportedError, ValueError):
    """An image, model, checkpoint or pixel cannot be used. The message gives the reason."""

    exit_status = 2
