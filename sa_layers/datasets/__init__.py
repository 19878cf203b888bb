"""Data sets that are made on the spot, so that demos and tests need no download.

The names below come from :mod:`sa_layers.datasets.shapes`, which is loaded on first use: ``python -m
sa_layers.datasets.shapes`` must not find itself imported already, and reading ``CLASSES`` must not need OpenCV.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sa_layers.datasets.shapes import CLASSES, LABELS, PALETTE, ShapesError, ShapesFolder, make_shapes, verify

__all__ = ["CLASSES", "LABELS", "PALETTE", "ShapesError", "ShapesFolder", "make_shapes", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sa_layers.datasets import shapes

    return getattr(shapes, name)
