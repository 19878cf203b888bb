"""Parameters and multiply-adds of networks, compared with the paper's: ``python -m sa_layers.complexity``."""

from .count import Complexity, Layer, count

__all__ = ["Complexity", "Layer", "count"]
