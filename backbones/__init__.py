"""The SAN backbones for OpenMMLab; installed as sa_layers.backbones."""

from .san import SAN

__all__ = ["SAN"]
