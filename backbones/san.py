"""SAN10, SAN15 and SAN19 as a backbone for OpenMMLab's detectors, segmentors and classifiers."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any

from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self

from sa_layers.checkpoints import matching
from sa_layers.layers.keywords import check_keywords
from sa_layers.models import SelfAttentionNetwork
from sa_layers.models.self_attention_network import STAGES, network_keywords
from sa_layers.registry import MODELS

from .factories import act_factory, norm_factory
from .pretrained import PretrainedBackbone, is_called_by_mmengine

NAMES = ["SAN", "SelfAttentionNetwork"]


@MMENGINE_MODELS.register_module(name=NAMES)
@MODELS.register_module(name=NAMES)
class SAN(SelfAttentionNetwork, PretrainedBackbone):
    """Self-attention network of "Exploring Self-attention for Image Recognition" (https://arxiv.org/abs/2004.13621).

    ``SAN(depth=19, out_indices=(1, 2, 3, 4))`` returns features with 256, 512, 1024 and 2048 channels at strides 4, 8,
    16 and 32. It can therefore replace a ResNet-50 without changes to the neck or the head.

    Args:
        depth: 10, 15, 19, or the number of blocks of each of the five stages. Defaults to 10.
        attention: 'pairwise' (default), 'patchwise', or a name given by
            :func:`sa_layers.layers.register_attention`.
        in_channels: Number of channels of the image. Defaults to 3.
        kernel_sizes: Size of the footprint in each stage. Defaults to (3, 7, 7, 7, 7).
        strides: Stride of each stage, 1 or 2. Defaults to (2, 2, 2, 2, 2).
        dilations: Dilation of the footprint in each stage. Defaults to (1, 1, 1, 1, 1).
        out_indices: Indices of the stages whose features are returned. Negative indices count from the last stage.
            Defaults to (-1,).
        frozen_stages: Index of the last frozen stage. 0 freezes the stem and stage 0, which together correspond to the
            stem of a ResNet; 1 freezes stage 1 as well, and so on. Defaults to -1, which freezes nothing.
        norm_cfg: Config of the normalisation layers. Defaults to ``dict(type='BN', requires_grad=True)``.
        act_cfg: Config of the activation layers. Defaults to ``dict(type='ReLU', inplace=True)``; full backward hooks
            need ``dict(type='ReLU', inplace=False)``.
        norm_eval: Whether batch norm layers stay in evaluation mode during training, so that their running statistics
            do not change. Defaults to False.
        with_cp: Whether to save memory by recomputing the activations of each block in the backward pass. Defaults to
            False.
        init_cfg: Initialisation config of mmengine. Defaults to None, which keeps torch's default initialisation, as
            the official network does. Use ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')`` to load the
            backbone of a checkpoint, in any layout that :mod:`sa_layers.checkpoints` knows. A checkpoint that does not
            fit is an error.
        num_stages: Number of stages that are built, from 1 to 5. Those behind the last of ``out_indices`` are never
            called, and their parameters are frozen. Defaults to None, which builds no such stage. The tensors of
            stages that are not built are ignored in checkpoints.
        **attention_options: Other arguments of the network and its attention layers: widths, relation, position,
            position_image_size, mapping_layers, share, shared_transforms, padding_mode.

    Raises:
        TypeError: If an argument is unknown.
        ValueError: If an argument has a value that is not allowed. The message names the argument.

    Example:
        >>> import torch
        >>> backbone = SAN(depth=10, attention='patchwise', out_indices=(1, 2, 3, 4))
        >>> [tuple(features.shape) for features in backbone(torch.randn(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]
    """

    def __init__(
        self,
        depth: int | Sequence[int] = 10,
        attention: str = "pairwise",
        in_channels: int = 3,
        kernel_sizes: Sequence[int] = (3, 7, 7, 7, 7),
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1, 1),
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        num_stages: int | None = None,
        **attention_options: Any,
    ) -> None:
        accepted = network_keywords(attention, without=("norm_layer", "act_layer"))
        check_keywords(self, SAN, attention_options, accepted)
        if frozen_stages not in range(-1, STAGES):
            raise ValueError(f"frozen_stages must be from -1 (none) to {STAGES - 1}, got {frozen_stages!r}")
        super().__init__(
            depth=depth,
            attention=attention,
            in_channels=in_channels,
            kernel_sizes=kernel_sizes,
            strides=strides,
            dilations=dilations,
            out_indices=out_indices,
            with_cp=with_cp,
            num_stages=num_stages,
            norm_layer=norm_factory(norm_cfg),
            act_layer=act_factory(act_cfg),
            **attention_options,
        )
        self.init_cfg = init_cfg
        self.frozen_stages = int(frozen_stages)
        self.norm_eval = norm_eval
        self._freeze_stages()

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of all modules except the frozen ones."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """Return the layer depth of a parameter, which mmpretrain uses for layer-wise learning rate decay.

        The stem is layer 0 and each residual block is one layer. The transition of a stage belongs to the stage's
        first block and the final norm to its last block. Everything after the backbone is the last layer.

        Args:
            param_name: Name of the parameter in the model.
            prefix: Prefix of the backbone's parameters in the model. Defaults to ''.

        Returns:
            The layer depth of the parameter and the number of layer depths, which is the number of blocks plus 2.

        Example:
            >>> SAN(depth=10).get_layer_depth('backbone.stages.3.blocks.1.norm1.weight', 'backbone.')
            (7, 12)
        """
        depths = sum(self.stage_blocks) + 2
        if not param_name.startswith(prefix):
            return depths - 1, depths
        match = re.match(r"stages\.(\d+)\.(?:blocks\.(\d+)|(norm))?", param_name[len(prefix) :])
        if match is None:
            return 0, depths
        stage = int(match[1])
        block = self.stage_blocks[stage] - 1 if match[3] else int(match[2] or 0)
        return 1 + sum(self.stage_blocks[:stage]) + block, depths

    def _load_from_state_dict(self, state_dict: MutableMapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        """Refuse checkpoints of which mmengine would load nothing, or only a part, with a warning."""
        if is_called_by_mmengine():
            matching.prepare(state_dict, prefix)
            matching.check(self, matching.below(state_dict, prefix), whole=True)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen: list[nn.Module] = [self.stem, *self.stages[: self.frozen_stages + 1]]
        for module in frozen:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False
