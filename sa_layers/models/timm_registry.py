"""The networks in timm's registry: after an import of this module, timm.create_model builds them by name.

sa_layers does not import it, since the import of timm takes seconds.

Example:
    >>> import timm
    >>> import sa_layers.models.timm_registry
    >>> timm.create_model("san10_patchwise", features_only=True).feature_info.channels()
    [64, 256, 512, 1024, 2048]
"""

from __future__ import annotations

from collections.abc import Mapping
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
from .timm_features import StageFeatures
from .timm_network import TimmSelfAttentionNetwork

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

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
        feature_cfg={"feature_cls": StageFeatures},
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
