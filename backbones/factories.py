"""Normalisation and activation by mmcv's configs, as what the layers and networks call to make one."""

from __future__ import annotations

from mmcv.cnn import build_activation_layer, build_norm_layer

from sa_layers.layers.mapping import ActLayer, NormLayer


def norm_factory(norm_cfg: dict | None = None) -> NormLayer:
    """Makes normalisations for numbers of channels.

    Args:
        norm_cfg: mmcv's config of the normalisation. Defaults to ``dict(type='BN', requires_grad=True)``.

    Example:
        >>> norm_factory({'type': 'GN', 'num_groups': 2})(8)
        GroupNorm(2, 8, eps=1e-05, affine=True)
    """
    config = norm_cfg or {"type": "BN", "requires_grad": True}
    return lambda channels: build_norm_layer(config, channels)[1]


def act_factory(act_cfg: dict | None = None) -> ActLayer:
    """Makes activations.

    Args:
        act_cfg: mmcv's config of the activation. Defaults to ``dict(type='ReLU', inplace=True)``.

    Example:
        >>> act_factory()()
        ReLU(inplace=True)
    """
    config = act_cfg or {"type": "ReLU", "inplace": True}
    return lambda: build_activation_layer(config)
