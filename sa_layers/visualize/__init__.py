"""Visualization of attention weights and effective receptive fields.

``python -m sa_layers.visualize IMAGE CONFIG [CHECKPOINT]`` draws both for a model of mmseg, mmdet or mmpretrain. The
functions of this package accept any module with attention layers and return arrays. The hook
``sa_layers.AttentionVisualizationHook`` draws attention weights during training.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..extras import importing
from .errors import VisualizationError

if TYPE_CHECKING:
    from .measures import difference, entropy
    from .page import Photograph, write_page
    from .receptive_field import effective_receptive_field
    from .weights import LayerWeights, attention_weights

__all__ = [
    "LayerWeights",
    "Photograph",
    "VisualizationError",
    "attention_weights",
    "difference",
    "effective_receptive_field",
    "entropy",
    "write_page",
]
_MODULES = {
    "LayerWeights": "weights",
    "Photograph": "page",
    "attention_weights": "weights",
    "difference": "measures",
    "effective_receptive_field": "receptive_field",
    "entropy": "measures",
    "write_page": "page",
}


def __getattr__(name: str) -> Any:
    """Import a function at its first use, because it needs packages that the command can report as missing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with importing("visualize"):
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
