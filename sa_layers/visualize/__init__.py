"""Visualization of attention weights and effective receptive fields.

``python -m sa_layers.visualize IMAGE CONFIG [CHECKPOINT]`` draws both for a model of mmseg, mmdet or mmpretrain. The
functions of this package accept any module with attention layers and return arrays. The hook
``sa_layers.AttentionVisualizationHook`` draws attention weights during training.
"""

from .errors import VisualizationError
from .measures import difference, entropy
from .receptive_field import effective_receptive_field
from .weights import LayerWeights, attention_weights

__all__ = [
    "LayerWeights",
    "VisualizationError",
    "attention_weights",
    "difference",
    "effective_receptive_field",
    "entropy",
]
