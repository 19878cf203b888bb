"""The convolutional counterparts ResNet-26, -38 and -50 that the paper compares its networks with."""

from __future__ import annotations

import re
from typing import ClassVar

from mmpretrain.models.backbones import resnet


class ResNet(resnet.ResNet):
    """mmpretrain's ResNet with two depths more: 26 and 38, whose stages have as many blocks as SAN10's and SAN15's.

    Bottlenecks 1, 2, 4, 1 (ResNet-26), 2, 3, 5, 2 (ResNet-38) and 3, 4, 6, 3 (ResNet-50): 13,696,552, 19,626,792 and
    25,557,032 parameters with a head of 1000 classes. The arguments are those of mmpretrain's ResNet, and so are
    initialisation, freezing and the names of the parameters. In configs it is ``type='sa_layers.ResNet'``; unlike SAN
    it has no name without the prefix, since every toolbox has a ResNet of its own.

    Args:
        depth: 26, 38, 50 or another of mmpretrain's.
        **options: The arguments of mmpretrain's ResNet: out_indices, strides, dilations, frozen_stages, conv_cfg,
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
        """The depth of a parameter and the number of depths: stem, residual block by residual block, what follows.

        As in :class:`SAN`, and unlike in mmpretrain's ResNet, which knows some depths only and groups blocks.
        """
        depths = sum(self.stage_blocks) + 2
        if not param_name.startswith(prefix):
            return depths - 1, depths
        if match := re.match(r"layer(\d+)\.(\d+)\.", param_name[len(prefix) :]):
            return 1 + sum(self.stage_blocks[: int(match[1]) - 1]) + int(match[2]), depths
        return 0, depths
