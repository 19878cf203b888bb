"""A self-attention block that can be used as a plugin of the OpenMMLab ResNets."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS

from sa_layers.layers import SelfAttentionBlock
from sa_layers.layers.keywords import check_keywords
from sa_layers.layers.self_attention_block import attention_keywords
from sa_layers.registry import MODELS

from .factories import act_factory, norm_factory


@MMENGINE_MODELS.register_module()
@MODELS.register_module()
class SelfAttentionPlugin(SelfAttentionBlock):
    """The paper's residual block, for the ``plugins`` argument of the ResNets of mmdet and mmseg.

    Args:
        in_channels: Number of channels of the input and the output, a multiple of 16 and of ``4 * share``.
        kernel_size: Size of the footprint, odd. Defaults to 7.
        attention: 'pairwise' (default) or 'patchwise'.
        norm_cfg: Config of the normalisation layers. Defaults to ``dict(type='BN', requires_grad=True)``.
        act_cfg: Config of the activation layers. Defaults to ``dict(type='ReLU', inplace=True)``.
        **options: Other keyword arguments of :class:`sa_layers.layers.SelfAttentionBlock` and its attention layer.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If an argument has a value that is not allowed. The message names the argument.

    Shapes:
        (N, in_channels, H, W) -> (N, in_channels, H, W)

    Example:
        >>> from mmcv.cnn import build_plugin_layer
        >>> build_plugin_layer({"type": "sa_layers.SelfAttentionPlugin", "attention": "patchwise"}, in_channels=64)[0]
        'self_attention'
    """

    _abbr_ = "self_attention"  # mmcv names the submodule after this attribute

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 7,
        attention: str = "pairwise",
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        **options: Any,
    ) -> None:
        check_keywords(self, SelfAttentionPlugin, options, ["dilation", *attention_keywords(attention)])
        super().__init__(
            in_channels,
            kernel_size,
            attention,
            norm_layer=norm_factory(norm_cfg),
            act_layer=act_factory(act_cfg),
            **options,
        )
