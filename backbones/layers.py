"""The attention layers, registered so that a config can use one wherever OpenMMLab builds a convolution.

Example:
    >>> from mmcv.cnn import ConvModule
    >>> ConvModule(64, 64, 3, padding=1, conv_cfg={"type": "sa_layers.PatchwiseSelfAttention"}).conv.weight_channels
    8
"""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS

from sa_layers import layers
from sa_layers.layers.keywords import check_keywords, keywords
from sa_layers.registry import MODELS

from .factories import act_factory, norm_factory
from .own_parameters import OwnParameters


@MMENGINE_MODELS.register_module()
@MODELS.register_module()
class PairwiseSelfAttention(layers.PairwiseSelfAttention):
    """:class:`sa_layers.layers.PairwiseSelfAttention` with normalisation and activation given as configs.

    Args:
        *args: Positional arguments of the layer. The first eight are those of :class:`torch.nn.Conv2d`.
        norm_cfg: Config of the mapping's normalisation layers. Defaults to ``dict(type='BN', requires_grad=True)``.
        act_cfg: Config of the mapping's activation layers. Defaults to ``dict(type='ReLU', inplace=True)``.
        **options: Other keyword arguments of the layer: relation, position, share, ...

    Example:
        >>> from mmcv.cnn import build_conv_layer
        >>> config = {'type': 'sa_layers.PairwiseSelfAttention', 'norm_cfg': {'type': 'GN', 'num_groups': 1}}
        >>> build_conv_layer(config, 64, 64, 7, stride=2).mapping[0]
        GroupNorm(1, 18, eps=1e-05, affine=True)
    """

    def __init__(self, *args: Any, norm_cfg: dict | None = None, act_cfg: dict | None = None, **options: Any) -> None:
        check_keywords(
            self,
            PairwiseSelfAttention,
            options,
            keywords(layers.PairwiseSelfAttention, without=("norm_layer", "act_layer")),
        )
        super().__init__(*args, norm_layer=norm_factory(norm_cfg), act_layer=act_factory(act_cfg), **options)
        self._parameters = OwnParameters(self)


@MMENGINE_MODELS.register_module()
@MODELS.register_module()
class PatchwiseSelfAttention(layers.PatchwiseSelfAttention):
    """:class:`sa_layers.layers.PatchwiseSelfAttention` with normalisation and activation given as configs.

    Args:
        *args: Positional arguments of the layer. The first eight are those of :class:`torch.nn.Conv2d`.
        norm_cfg: Config of the mapping's normalisation layers. Defaults to ``dict(type='BN', requires_grad=True)``.
        act_cfg: Config of the mapping's activation layers. Defaults to ``dict(type='ReLU', inplace=True)``.
        **options: Other keyword arguments of the layer: relation, share, ...
    """

    def __init__(self, *args: Any, norm_cfg: dict | None = None, act_cfg: dict | None = None, **options: Any) -> None:
        check_keywords(
            self,
            PatchwiseSelfAttention,
            options,
            keywords(layers.PatchwiseSelfAttention, without=("norm_layer", "act_layer")),
        )
        super().__init__(*args, norm_layer=norm_factory(norm_cfg), act_layer=act_factory(act_cfg), **options)
        self._parameters = OwnParameters(self)
