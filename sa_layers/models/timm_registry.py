"""The networks in timm's registry: after an import of this module, timm.create_model builds them by name.

sa_layers does not import it, since the import of timm takes seconds.

Example:
    >>> import timm
    >>> import sa_layers.models.timm_registry
    >>> timm.create_model("san10_patchwise", features_only=True).feature_info.channels()
    [64, 256, 512, 1024, 2048]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

try:
    from timm.models import (
        build_model_with_cfg,
        generate_default_cfgs,
        register_model,
        register_notrace_module,
    )
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "timm":
        raise
    raise ModuleNotFoundError(
        f"{__name__} needs timm, which is not installed: pip install 'sa-layers[timm]'", name="timm"
    ) from error
from torch import Tensor, nn

from ..checkpoints.loading import fit
from ..layers import PairwiseSelfAttention, PatchwiseSelfAttention
from ..layers.keywords import check_keywords
from ..ops.integers import integers, is_integer
from .self_attention_classifier import SelfAttentionClassifier
from .self_attention_network import STAGES, network_keywords
from .self_attention_stage import SelfAttentionStage
from .timm_options import TIMM_OPTIONS, network_options

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
        ``norm`` has no effect, since every stage ends with a norm; neither has ``stop_early``.

        Raises:
            ValueError: ``output_fmt`` is not 'NCHW'.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        features = self.network(image)
        intermediates = [features[index] for index in self._stage_indices(indices)]
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
        for name in ("stage_blocks", "out_indices", "out_channels", "out_strides"):
            setattr(network, name, getattr(network, name)[:kept])
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


def _checked_pool(global_pool: str, num_classes: int) -> str:
    if global_pool not in ("avg", "") or (num_classes and not global_pool):
        raise ValueError(f"global_pool must be 'avg', or '' with num_classes=0, got {global_pool!r}")
    return global_pool


# torch.fx, by which timm extracts the features of any node, calls them as modules.
for _layer in (PairwiseSelfAttention, PatchwiseSelfAttention):
    register_notrace_module(_layer)

NAMES = [f"san{depth}_{attention}" for depth in (10, 15, 19) for attention in ("pairwise", "patchwise")]
default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",  # there are no pretrained weights
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "min_input_size": (3, 32, 32),
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "first_conv": "network.stem.0",
            "classifier": "head",
            "paper_ids": "arXiv:2004.13621",
            "license": "mit",
        }
        for name in NAMES
    }
)


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of a checkpoint in any layout: the authors', OpenMMLab's, or a network alone."""
    return fit(state_dict, model.state_dict(keep_vars=True))


def _names_file(options: Mapping[str, Any]) -> bool:
    """Whether the options of timm.create_model say where pretrained weights are."""
    sources = [options.get("pretrained_cfg"), options.get("pretrained_cfg_overlay")]
    given = [source if isinstance(source, dict) else vars(source) for source in sources if source is not None]
    return any(source.get(name) for source in given for name in ("file", "url", "hf_hub_id", "state_dict"))


def _create(variant: str, pretrained: bool, **options: Any) -> nn.Module:
    if pretrained and not _names_file(options):
        raise ValueError(
            f"{variant} has no pretrained weights yet: pass checkpoint_path=..., "
            "or pretrained_cfg_overlay=dict(file=...) with pretrained=True"
        )
    depth, attention = variant.removeprefix("san").split("_")
    return build_model_with_cfg(
        TimmSelfAttentionNetwork,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"feature_cls": "getter"},
        depth=int(depth),
        attention=attention,
        **options,
    )


@register_model
def san10_pairwise(pretrained: bool = False, **options: Any) -> nn.Module:
    """SAN10 with pairwise attention."""
    return _create("san10_pairwise", pretrained, **options)


@register_model
def san10_patchwise(pretrained: bool = False, **options: Any) -> nn.Module:
    """SAN10 with patchwise attention."""
    return _create("san10_patchwise", pretrained, **options)


@register_model
def san15_pairwise(pretrained: bool = False, **options: Any) -> nn.Module:
    """SAN15 with pairwise attention."""
    return _create("san15_pairwise", pretrained, **options)


@register_model
def san15_patchwise(pretrained: bool = False, **options: Any) -> nn.Module:
    """SAN15 with patchwise attention."""
    return _create("san15_patchwise", pretrained, **options)


@register_model
def san19_pairwise(pretrained: bool = False, **options: Any) -> nn.Module:
    """SAN19 with pairwise attention."""
    return _create("san19_pairwise", pretrained, **options)


@register_model
def san19_patchwise(pretrained: bool = False, **options: Any) -> nn.Module:
    """SAN19 with patchwise attention."""
    return _create("san19_patchwise", pretrained, **options)
