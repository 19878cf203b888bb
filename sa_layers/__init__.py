"""Vector self-attention for any network: operators, layers and the SAN backbones.

The names below and the modules they come from are imported when they are first used, since ``import sa_layers`` alone
imports neither torch nor anything else.

Example:
    >>> import sa_layers
    >>> sa_layers.PairwiseSelfAttention(16, 16, kernel_size=3).weight_channels
    2
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import checkpoints, layers, models, ops, reference
    from .layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock, register_attention
    from .models import SelfAttentionClassifier, SelfAttentionNetwork

_MODULES = ("checkpoints", "layers", "models", "ops", "reference")
_MODULE_OF = {
    "PairwiseSelfAttention": "layers",
    "PatchwiseSelfAttention": "layers",
    "SelfAttentionBlock": "layers",
    "register_attention": "layers",
    "SelfAttentionClassifier": "models",
    "SelfAttentionNetwork": "models",
}

__all__ = [
    "PairwiseSelfAttention",
    "PatchwiseSelfAttention",
    "SelfAttentionBlock",
    "SelfAttentionClassifier",
    "SelfAttentionNetwork",
    "__version__",
    "checkpoints",
    "layers",
    "models",
    "ops",
    "reference",
    "register_attention",
]


def __getattr__(name: str) -> Any:
    """Import a module, or the module of a name, when it is first used."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
