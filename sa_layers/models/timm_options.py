"""Options that timm gives to every model, as arguments of a self-attention network or as an error that explains."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

TIMM_OPTIONS = ("output_stride", "bn_eps", "bn_momentum", "drop_path_rate", "img_size")
OUTPUT_STRIDES = (2, 4, 8, 16, 32)


def network_options(
    output_stride: int = 32,
    bn_eps: float | None = None,
    bn_momentum: float | None = None,
    drop_path_rate: float = 0.0,
    img_size: int | tuple[int, int] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Translate timm's options.

    Args:
        output_stride: The largest stride of a stage: 2, 4, 8, 16 or 32. Beyond it, stages dilate their footprints
            instead of pooling. Defaults to 32, which changes nothing.
        bn_eps: ``eps`` of the norms. Defaults to that of ``norm_layer``.
        bn_momentum: ``momentum`` of the norms. Defaults to that of ``norm_layer``.
        drop_path_rate: Must be 0 (default).
        img_size: Must be None (default).
        **options: Arguments of the network, which are returned with the translated ones.

    Raises:
        ValueError: The network does not have the option, or not with this value; the message says what it has instead.

    Example:
        >>> network_options(output_stride=8)
        {'strides': (2, 2, 2, 1, 1), 'dilations': (1, 1, 1, 2, 4)}
    """
    if drop_path_rate:
        raise ValueError(
            f"drop_path_rate must be 0, got {drop_path_rate!r}: the networks have no stochastic depth; "
            "drop_rate drops pooled features"
        )
    if img_size is not None:
        raise ValueError(
            f"img_size must be None, got {img_size!r}: the networks take images of every size; "
            "position_image_size sets the scale of positions"
        )
    if output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride must be one of {', '.join(map(str, OUTPUT_STRIDES))}, got {output_stride!r}")
    norm_options = {"eps": bn_eps, "momentum": bn_momentum}
    given = {name: value for name, value in norm_options.items() if value is not None}
    if given:
        options["norm_layer"] = partial(options.get("norm_layer", nn.BatchNorm2d), **given)
    if output_stride < OUTPUT_STRIDES[-1]:
        strides, dilations = options.get("strides", (2,) * 5), options.get("dilations", (1,) * 5)
        options["strides"], options["dilations"] = dilated(strides, dilations, output_stride)
    return options


def dilated(strides: Sequence[int], dilations: Sequence[int], largest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Replace the strides that would exceed ``largest`` by dilations; a footprint then spans the same pixels.

    Args:
        strides: Of each stage.
        dilations: Of each stage.
        largest: The largest stride from the image to a stage.

    Returns:
        Strides and dilations.

    Example:
        >>> dilated((2, 2, 2, 2, 2), (1, 1, 1, 1, 1), 16)
        ((2, 2, 2, 2, 1), (1, 1, 1, 1, 2))
    """
    total, replaced = 1, 1
    pairs = []
    for stride, dilation in zip(strides, dilations, strict=True):
        if total * stride > largest:
            stride, replaced = 1, replaced * stride
        total *= stride
        pairs.append((stride, dilation * replaced))
    new_strides, new_dilations = zip(*pairs, strict=True)
    return new_strides, new_dilations
