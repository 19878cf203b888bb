"""Generated data sets, so that demos and tests need no download.

The names below are imported from :mod:`sa_layers.datasets.shapes` on first use. Otherwise ``python -m
sa_layers.datasets.shapes`` would warn that the module is already imported.
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
