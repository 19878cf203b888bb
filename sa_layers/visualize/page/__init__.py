"""A web page on which one points at a pixel and sees its attention weights: one file, which needs no server.

``python -m sa_layers.visualize IMAGE CONFIG CHECKPOINT --page`` writes it for one image, :func:`write_page` for
several.
"""

from .writer import Photograph, write_page

__all__ = ["Photograph", "write_page"]
