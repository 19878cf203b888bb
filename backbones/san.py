"""SAN10, SAN15 and SAN19 as a backbone that any OpenMMLab detector, segmentor or classifier can be given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self

from sa_layers.models import SelfAttentionNetwork
from sa_layers.models.self_attention_network import STAGES
from sa_layers.registry import MODELS

from .factories import act_factory, norm_factory

NAMES = ["SAN", "SelfAttentionNetwork"]


@MMENGINE_MODELS.register_module(name=NAMES)
@MODELS.register_module(name=NAMES)
class SAN(SelfAttentionNetwork, BaseModule):
    """Self-attention network of "Exploring Self-attention for Image Recognition" (https://arxiv.org/abs/2004.13621).

    ``SAN(depth=19, out_indices=(1, 2, 3, 4))`` gives 256, 512, 1024 and 2048 channels at strides 4, 8, 16 and 32: the
    place of a ResNet-50, with no change to neck or head.

    Args:
        depth: 10, 15, 19, or the number of blocks of each of the five stages. Defaults to 10.
        attention: 'pairwise' (default) or 'patchwise'.
        in_channels: Channels of the image. Defaults to 3.
        kernel_sizes: The footprint of each stage. Defaults to (3, 7, 7, 7, 7).
        strides: 2 halves the map at the entry of a stage, 1 keeps it. Defaults to 2 for all.
        dilations: Pixels between the taps of each stage's footprints. Defaults to 1 for all.
        out_indices: The stages whose features are returned, from 0 or, negative, from the end. Defaults to (4,).
        frozen_stages: The last stage that is not trained: 0 freezes the stem and stage 0 (as much as the stem of a
            ResNet), 1 stage 1 too, and so on. Defaults to -1, none.
        norm_cfg: The normalisation. Defaults to ``dict(type='BN', requires_grad=True)``.
        act_cfg: The activation. Defaults to ``dict(type='ReLU', inplace=True)``.
        norm_eval: Whether batch norms keep their running statistics while training. Defaults to False.
        with_cp: Whether blocks recompute their activations in the backward pass, to save memory. Defaults to False.
        init_cfg: mmengine's initialisation. Defaults to None, torch's own initialisation of every layer, as in the
            official network. A checkpoint's backbone: ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.
        **attention_options: Further arguments of the network and its attention layers: widths, relation, position,
            position_image_size, mapping_layers, share, shared_transforms, padding_mode.

    Raises:
        ValueError: An argument is not among what is allowed; the message names it.

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
        out_indices: int | Sequence[int] = (4,),
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        **attention_options: Any,
    ) -> None:
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
            norm_layer=norm_factory(norm_cfg),
            act_layer=act_factory(act_cfg),
            **attention_options,
        )
        self.init_cfg = init_cfg
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self._freeze_stages()

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is frozen."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = "") -> tuple[int, int]:
        """The depth of a parameter, for mmpretrain's layer-wise decay of learning rates.

        The stem is 0; residual block after residual block follows, a transition with the block that it leads to, the
        norm that ends a stage with the block before it; what comes after the backbone is last.

        Args:
            param_name: The name of the parameter in the model.
            prefix: What the names of the backbone's parameters start with there. Defaults to nothing.

        Returns:
            The depth and the number of depths, which is the number of blocks and two.

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

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        """Refuses the weights of another network, of which mmengine would load what fits, with a warning."""
        there = [name.removeprefix(prefix) for name in state_dict if name.startswith(f"{prefix}stages.")]
        here = list(self.state_dict())
        if there and (found := _blocks(there)) != (wanted := _blocks(here)):
            raise ValueError(f"the checkpoint is of another depth: {found} blocks in its stages, here {wanted}")
        if there and (position := _has_position(there)) != _has_position(here):
            kinds = "pairwise attention", "patchwise attention, or pairwise without position"
            raise ValueError(f"the checkpoint is of {kinds[not position]}, and this backbone is of {kinds[position]}")
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen: list[nn.Module] = [self.stem, *self.stages[: self.frozen_stages + 1]]
        for module in frozen:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False


def _blocks(names: Iterable[str]) -> tuple[int, ...]:
    """How many blocks each stage has, from the names of the tensors."""
    blocks = {match[0]: int(match[1]) for name in names if (match := re.match(r"stages\.(\d+)\.blocks\.\d+", name))}
    return tuple(list(blocks.values()).count(stage) for stage in range(STAGES))


def _has_position(names: Iterable[str]) -> bool:
    return any(".attention.position." in name for name in names)
