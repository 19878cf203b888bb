"""Factories of normalisation and activation layers, built from mmcv's ``norm_cfg`` and ``act_cfg``."""

from __future__ import annotations

from mmcv.cnn import build_activation_layer, build_norm_layer

from sa_layers.layers.mapping import ActLayer
from sa_layers.layers.norm import NormLayer


def norm_factory(norm_cfg: dict | None = None) -> NormLayer:
    """Return a function that builds a normalisation layer for a given number of channels.

    Args:
        norm_cfg: Config of the normalisation layer. Defaults to ``dict(type='BN', requires_grad=True)``.

    Example:
        >>> norm_factory({'type': 'GN', 'num_groups': 2})(8)
        GroupNorm(2, 8, eps=1e-05, affine=True)
    """
    config = norm_cfg or {"type": "BN", "requires_grad": True}
    return lambda channels: build_norm_layer(config, channels)[1]


def act_factory(act_cfg: dict | None = None) -> ActLayer:
    """Return a function that builds an activation layer.

    Args:
        act_cfg: Config of the activation layer. Defaults to ``dict(type='ReLU', inplace=True)``.

    Example:
        >>> act_factory()()
        ReLU(inplace=True)
    """
    config = act_cfg or {"type": "ReLU", "inplace": True}
    return lambda: build_activation_layer(config)
