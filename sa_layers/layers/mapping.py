"""The mapping γ from a relation to attention weights, or to the logits of a softmax."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .norm import NormLayer, make_norm

ActLayer = Callable[[], nn.Module]


def make_mapping(
    in_channels: int,
    hidden_channels: int,
    out_channels: int,
    layers: int,
    norm_layer: NormLayer,
    act_layer: ActLayer,
) -> nn.Sequential:
    """Make a mapping: norm, activation and linear layer, ``layers`` times; only the last linear layer has a bias.

    Two layers are the mapping of the official network, which also normalises before the first linear layer. Linear
    layers are 1x1 convolutions, since a relation has the layout of a map of taps x pixels: (N, D, K*K, Ho*Wo).

    Args:
        in_channels: D, the channels of the relation and its position encoding.
        hidden_channels: The channels between the linear layers.
        out_channels: The channels of the weights.
        layers: The number of linear layers: 1, 2 or 3.
        norm_layer: Makes a normalisation for a number of channels.
        act_layer: Makes an activation.

    Raises:
        ValueError: ``layers`` is not 1, 2 or 3, or ``norm_layer`` refuses the channels of a layer.

    Example:
        >>> [type(layer).__name__ for layer in make_mapping(18, 16, 8, 2, nn.BatchNorm2d, nn.ReLU)]
        ['BatchNorm2d', 'ReLU', 'Conv2d', 'BatchNorm2d', 'ReLU', 'Conv2d']
    """
    if layers not in (1, 2, 3):
        raise ValueError(f"mapping_layers must be 1, 2 or 3, got {layers!r}")
    widths = [in_channels, *[hidden_channels] * (layers - 1), out_channels]
    modules: list[nn.Module] = []
    for index in range(layers):
        last = index == layers - 1
        norm = make_norm(norm_layer, widths[index], str(len(modules)))
        modules += [norm, act_layer(), nn.Conv2d(widths[index], widths[index + 1], 1, bias=last)]
    return nn.Sequential(*modules)
