"""What attention attends to: the weights of every footprint, effective receptive fields, pictures of both.

``python -m sa_layers.visualize IMAGE CONFIG [CHECKPOINT]`` draws them for a model of mmseg, mmdet or mmpretrain; the
functions here take any module with attention layers and return arrays. `sa_layers.AttentionVisualizationHook` draws
during training.
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
