"""Vector self-attention for any network: operators, layers and the SAN backbones."""

from .version import __version__

__all__ = ["__version__"]
