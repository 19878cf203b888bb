"""A web page that shows the attention weights of the pixel under the pointer: one file, which needs no server.

``python -m sa_layers.visualize IMAGE CONFIG CHECKPOINT --page`` writes it for one image, :func:`write_page` for
several.
"""

from .writer import Photograph, write_page

__all__ = ["Photograph", "write_page"]
