"""The attention layers in the registries, so that a config can put one wherever OpenMMLab builds a convolution.

Example:
    >>> from mmcv.cnn import ConvModule
    >>> ConvModule(64, 64, 3, padding=1, conv_cfg={"type": "sa_layers.PatchwiseSelfAttention"}).conv.weight_channels
    8
"""

from mmengine.registry import MODELS as MMENGINE_MODELS

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention
from sa_layers.registry import MODELS

for layer in (PairwiseSelfAttention, PatchwiseSelfAttention):
    MMENGINE_MODELS.register_module(module=layer)
    MODELS.register_module(module=layer)
