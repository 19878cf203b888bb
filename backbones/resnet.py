"""ResNet-26, ResNet-38 and ResNet-50, the convolutional networks with which the paper compares SAN."""

from __future__ import annotations

import re
from typing import ClassVar

from mmpretrain.models.backbones import resnet

from .pretrained import PretrainedBackbone


class ResNet(PretrainedBackbone, resnet.ResNet):
    """mmpretrain's ResNet with two additional depths, 26 and 38, the counterparts of SAN10 and SAN15.

    The stages have (1, 2, 4, 1) bottleneck blocks in ResNet-26, (2, 3, 5, 2) in ResNet-38 and (3, 4, 6, 3) in
    ResNet-50. With a head for 1000 classes these networks have 13,696,552, 19,626,792 and 25,557,032 parameters.

    Use ``type='sa_layers.ResNet'`` in configs. The scope prefix is required because every toolbox has a ResNet of its
    own.

    Args:
        depth: 26, 38, 50 or any other depth that mmpretrain supports.
        **options: Other arguments of mmpretrain's ResNet: out_indices, strides, dilations, frozen_stages, conv_cfg,
            norm_cfg, norm_eval, with_cp, init_cfg, ...

    Example:
        >>> import torch
        >>> backbone = ResNet(depth=26, out_indices=(0, 1, 2, 3))
        >>> [tuple(features.shape) for features in backbone(torch.ones(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    arch_settings: ClassVar[dict] = {
        **resnet.ResNet.arch_settings,
        26: (resnet.Bottleneck, (1, 2, 4, 1)),
        38: (resnet.Bottleneck, (2, 3, 5, 2)),
    }

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Return the layer depth of a parameter and the number of layer depths, as :class:`SAN` does.

        The stem is layer 0, each residual block is one layer, and everything after the backbone is the last layer.
        mmpretrain's own method supports only some depths and groups blocks.
        """
        depths = sum(self.stage_blocks) + 2
        if not param_name.startswith(prefix):
            return depths - 1, depths
        if match := re.match(r"layer(\d+)\.(\d+)\.", param_name[len(prefix) :]):
            return 1 + sum(self.stage_blocks[: int(match[1]) - 1]) + int(match[2]), depths
        return 0, depths
