"""Errors of the visualization."""


class VisualizationError(ValueError):
    """An image, model, checkpoint or pixel cannot be used. The message gives the reason."""
