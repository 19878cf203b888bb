"""The networks with the methods that timm's tools expect; timm itself is not needed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..layers.keywords import check_keywords
from ..ops.integers import integers, is_integer
from .self_attention_classifier import SelfAttentionClassifier
from .self_attention_network import STAGES, SelfAttentionNetwork, network_keywords
from .self_attention_stage import SelfAttentionStage
from .timm_options import TIMM_OPTIONS, network_options


class TimmSelfAttentionNetwork(SelfAttentionClassifier):
    """A SAN with the methods that timm's tools expect.

    Args:
        depth: 10, 15, 19, or the number of blocks of each of the five stages.
        attention: 'pairwise' or 'patchwise'.
        num_classes: The number of classes; 0 returns the pooled features. Defaults to 1000.
        in_chans: Channels of the image. Defaults to 3.
        global_pool: 'avg' (default), or '' to return the map of the last stage, which needs ``num_classes=0``.
        drop_rate: Probability of dropping a pooled feature in training. Defaults to 0.
        num_stages: The number of stages, from 1 to 5. Defaults to 5.
        **options: Further arguments of :class:`SelfAttentionNetwork` and those of
            :func:`sa_layers.models.timm_options.network_options`: output_stride, bn_eps, bn_momentum.

    Raises:
        ValueError: The value of an argument is not allowed; the message names it.
    """

    def __init__(
        self,
        depth: int | Sequence[int],
        attention: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        num_stages: int = STAGES,
        **options: Any,
    ) -> None:
        accepted = network_keywords(attention, without=("in_channels", "out_indices"))
        check_keywords(self, TimmSelfAttentionNetwork, options, [*accepted, *TIMM_OPTIONS])
        self.global_pool = _checked_pool(global_pool, num_classes)
        super().__init__(
            depth,
            attention,
            num_classes,
            drop_rate,
            in_channels=in_chans,
            out_indices=range(num_stages),
            num_stages=num_stages,
            **network_options(**options),
        )
        self.head_hidden_size, self.drop_rate = self.num_features, drop_rate
        self.feature_info = [
            {"num_chs": channels, "reduction": stride, "module": f"network.stages.{index}"}
            for index, (channels, stride) in enumerate(
                zip(self.network.out_channels, self.network.out_strides, strict=True)
            )
        ]

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H, W) -> logits, pooled features, or the map itself without pooling."""
        return super().forward_head(features, pre_logits) if self.global_pool else features

    def forward_intermediates(
        self,
        image: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the features of the last stage and those of the stages ``indices``; an integer counts the last ones.

        The stages are those that :meth:`prune_intermediate_layers` has left.
        ``norm`` has no effect, since every stage ends with a norm. With ``stop_early``, stages behind the last of
        ``indices`` are not computed, and the first result is of that stage.

        Raises:
            ValueError: ``output_fmt`` is not 'NCHW'.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        stages, network = self._stage_indices(indices), self.network
        if stop_early and max(stages) + 1 < len(network.stages):
            network = _first_stages(copy.copy(network), max(stages) + 1)
        features = network(image)
        intermediates = [features[index] for index in stages]
        return intermediates if intermediates_only else (features[-1], intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of ``indices`` and the head; return the indices."""
        stages, network = self._stage_indices(indices), self.network
        kept = max(stages) + 1
        if prune_head or kept < len(network.stages):
            self.num_features = self.head_hidden_size = network.out_channels[kept - 1]
            self.reset_classifier(0)
        network.stages = network.stages[:kept]
        _first_stages(network, kept)
        return stages

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer by a new one, or by none for 0 classes, and the pooling unless it is None."""
        if global_pool is not None:
            self.global_pool = _checked_pool(global_pool, num_classes)
        super().reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether blocks recompute their activations in the backward pass, to save memory."""
        for stage in self.network.stages:
            assert isinstance(stage, SelfAttentionStage)
            stage.with_cp = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter names by depth, for layer-wise learning rates.

        A transition belongs to the first block of its stage and the norm of a stage to its last block.
        """
        if coarse:
            return {"stem": r"^network\.stem", "blocks": r"^network\.stages\.(\d+)"}
        blocks: list[tuple[str, tuple[int, ...] | None]] = [
            (r"^network\.stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^network\.stages\.(\d+)\.transition", (0,)),
        ]
        for stage, number in enumerate(self.network.stage_blocks):
            blocks.append((rf"^network\.stages\.({stage})\.norm", (number - 1,)))
        return {"stem": r"^network\.stem", "blocks": blocks}

    def _stage_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """The stages of ``indices`` in timm's convention: None for all, an integer for the last ones, or a list."""
        count = len(self.network.stages)
        if indices is None:
            return list(range(count))
        stages: Sequence[int] | None = integers(indices)
        if is_integer(indices) and 1 <= int(indices) <= count:  # type: ignore[arg-type]
            stages = range(count)[-int(indices) :]  # type: ignore[arg-type]
        if not stages or not all(-count <= index < count for index in stages):
            raise ValueError(f"indices must refer to {count} stages, got {indices!r}")
        return [index % count for index in stages]


def _first_stages(network: SelfAttentionNetwork, count: int) -> SelfAttentionNetwork:
    """Make a network, which returns the features of all its stages, return those of the first ones."""
    for name in ("stage_blocks", "out_indices", "out_channels", "out_strides"):
        setattr(network, name, getattr(network, name)[:count])
    return network


def _checked_pool(global_pool: str, num_classes: int) -> str:
    if global_pool not in ("avg", "") or (num_classes and not global_pool):
        raise ValueError(f"global_pool must be 'avg', or '' with num_classes=0, got {global_pool!r}")
    return global_pool
