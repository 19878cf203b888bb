"""Writing the page: photographs and quantised weights, in the HTML file that draws them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...output_file import check_output, make_parent, output_file
from ..errors import VisualizationError
from ..weights import LayerWeights, last_of_each_stage

LEVELS = 127
"""Weights are stored as integers from -127 to 127, whose steps are too small to be seen as colours."""


class Photograph(NamedTuple):
    """A photograph and the weights of a network for it.

    Attributes:
        name: Shown to choose it.
        image: (H, W, 3) in RGB order, uint8, as the network has seen it.
        layers: What :func:`sa_layers.visualize.attention_weights` returns for it; the last of each stage is shown.
    """

    name: str
    image: NDArray[np.uint8]
    layers: Sequence[LayerWeights]


def write_page(
    path: str | Path, photographs: Sequence[Photograph], title: str = "Attention weights", channels: int = 6
) -> None:
    """Write a page that shows, for the pixel under the pointer, the weights of its footprint in every stage.

    The file is self-contained. It takes about 4/3 bytes for each pixel, tap and shown channel of every stage: 3 MB for
    a photograph of 224 x 224 pixels and a SAN.

    Args:
        path: File to write, .html.
        photographs: One or more.
        title: Heading of the page. Defaults to 'Attention weights'.
        channels: Number of weight channels shown beside the mean absolute weight, evenly spaced. Defaults to 6.

    Raises:
        VisualizationError: If there is no photograph, or ``channels`` is negative.
        OutputError: If the file cannot be written.

    Example:
        >>> import numpy, torch
        >>> from sa_layers.models import SelfAttentionNetwork
        >>> from sa_layers.visualize import attention_weights
        >>> image = numpy.zeros((64, 64, 3), numpy.uint8)
        >>> layers = attention_weights(SelfAttentionNetwork(10), torch.zeros(3, 64, 64))
        >>> write_page("attention.html", [Photograph("black", image, layers)])  # doctest: +SKIP
    """
    if not photographs:
        raise VisualizationError("photographs must not be empty")
    if channels < 0:
        raise VisualizationError(f"channels must not be negative, got {channels}")
    path = Path(path)
    check_output(path, make_folder=True)
    data = json.dumps([_encode(photograph, channels) for photograph in photographs], separators=(",", ":"))
    text = _source("page.html").replace("{{title}}", _escaped(title)).replace("{{script}}", _source("page.js"))
    make_parent(path)
    with output_file(path) as partial:
        # "</" in the data would end the script element that contains them
        partial.write_text(text.replace("{{data}}", data.replace("</", "<\\/")), encoding="utf-8")


def _source(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _encode(photograph: Photograph, channels: int) -> dict[str, Any]:
    height, width = photograph.image.shape[:2]
    _, png = cv2.imencode(".png", cv2.cvtColor(photograph.image, cv2.COLOR_RGB2BGR))
    layers = last_of_each_stage(photograph.layers)
    return {
        "name": photograph.name,
        "width": width,
        "height": height,
        "png": base64.b64encode(png.tobytes()).decode(),
        "layers": [_encode_layer(layer, channels) for layer in layers],
    }


def _encode_layer(layer: LayerWeights, channels: int) -> dict[str, Any]:
    """Geometry and weights of a layer; the mean absolute weight comes before the channels."""
    shown = np.linspace(0, len(layer.weights) - 1, min(channels, len(layer.weights))).round().astype(int)
    maps = np.stack([np.abs(layer.weights).mean(0), *layer.weights[shown]])
    scales = np.maximum(np.abs(maps).max(axis=(1, 2, 3, 4)), np.finfo(np.float32).tiny)
    levels = np.rint(maps / scales[:, None, None, None, None] * LEVELS).astype(np.int8)
    return {
        "name": layer.name,
        "stage": layer.stage,
        "softmax": layer.softmax,
        "channels": shown.tolist(),
        "total": len(layer.weights),
        "kernel": list(layer.footprint.kernel_size),
        "stride": list(layer.footprint.stride),
        "dilation": list(layer.footprint.dilation),
        "padding": layer.footprint.padding_mode,
        "map": list(layer.map_size),
        "out": list(layer.weights.shape[-2:]),
        "pixels": layer.image_stride,
        "scales": [float(scale) for scale in scales],
        # (channel, row, column, tap row, tap column): the weights of a pixel lie side by side
        "levels": base64.b64encode(levels.transpose(0, 3, 4, 1, 2).tobytes()).decode(),
    }
