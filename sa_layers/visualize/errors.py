"""What cannot be visualised, said in one sentence."""


class VisualizationError(ValueError):
    """The image, the model, the checkpoint or a pixel cannot be used; the message says why."""
