"""A self-attention block in the place of a ResNet plugin, which is built with its number of channels alone."""

from __future__ import annotations

from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS

from sa_layers.layers import SelfAttentionBlock
from sa_layers.registry import MODELS

from .factories import act_factory, norm_factory


@MMENGINE_MODELS.register_module()
@MODELS.register_module()
class SelfAttentionPlugin(SelfAttentionBlock):
    """The paper's residual block as an entry of ``plugins`` of mmdet's and mmseg's ResNets.

    Args:
        in_channels: C, of the input and the output; a multiple of 16 and of ``4 * share``.
        kernel_size: Taps of the footprint, odd. Defaults to 7.
        attention: 'pairwise' (default) or 'patchwise'.
        norm_cfg: The normalisation. Defaults to ``dict(type='BN', requires_grad=True)``.
        act_cfg: The activation. Defaults to ``dict(type='ReLU', inplace=True)``.
        **options: Further arguments of :class:`sa_layers.layers.SelfAttentionBlock` and its attention layer.

    Raises:
        ValueError: An argument is not among what is allowed; the message names it.

    Shapes:
        (N, in_channels, H, W) -> (N, in_channels, H, W)

    Example:
        >>> from mmcv.cnn import build_plugin_layer
        >>> build_plugin_layer({"type": "sa_layers.SelfAttentionPlugin", "attention": "patchwise"}, in_channels=64)[0]
        'self_attention'
    """

    _abbr_ = "self_attention"  # mmcv's name of the submodule

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 7,
        attention: str = "pairwise",
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels,
            kernel_size,
            attention,
            norm_layer=norm_factory(norm_cfg),
            act_layer=act_factory(act_cfg),
            **options,
        )
