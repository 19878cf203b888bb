"""Figures of attention weights and receptive fields, drawn with matplotlib and returned as RGB arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from .measures import entropy, half_radius
from .weights import LayerWeights

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Pixel = tuple[int, int]
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00")  # colour-blind safe
PANEL = 1.9  # side of a panel in inches
DPI = 110


def draw_weights(image: Image, layers: Sequence[LayerWeights], pixels: Mapping[str, Pixel]) -> Image:
    """Draw the attention weights of each layer (columns) at each pixel (two rows).

    The first row of a pixel shows the footprint over the image. The brightness of a tap is its mean absolute weight;
    weights of taps that read the same pixel because of reflection are added. The second row shows the kernels of the
    weight channels, or 36 evenly spaced ones if there are more. All pixels in a column share one colour scale.

    Args:
        image: Input image without padding, (H, W, 3) in RGB order.
        layers: Weights of the layers to draw.
        pixels: Pixels (x, y) by name, such as 'edge'.

    Returns:
        The figure as an RGB array.
    """
    rows = 2 * len(pixels)
    figure = Figure((PANEL * (len(layers) + 1), PANEL * 1.14 * rows), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, len(layers) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (name, pixel) in enumerate(pixels.items()):
        _draw_whole(axes[2 * index, 0], image, layers, name, pixel)
        _draw_legend(axes[2 * index + 1, 0], name, all(layer.softmax for layer in layers))
    for column, layer in enumerate(layers, start=1):
        kernels = {name: layer.kernels(pixel) for name, pixel in pixels.items()}
        low, high = _limits(list(kernels.values()), layer.softmax)
        footprints = {
            name: layer.on_image(np.abs(kernels[name]).mean(0), pixel, image.shape[:2])
            for name, pixel in pixels.items()
        }
        brightest = max(float(footprint.max()) for footprint in footprints.values())
        for index, (name, pixel) in enumerate(pixels.items()):
            over, grid = axes[2 * index, column], axes[2 * index + 1, column]
            _draw_footprint(over, image, layer, pixel, footprints[name], brightest)
            taps = "x".join(map(str, layer.footprint.kernel_size))
            over.set_title(f"{layer.stage}\n{taps}, stride {layer.image_stride}", fontsize=8)
            grid.imshow(_mosaic(kernels[name]), cmap=_colour_map(layer.softmax), vmin=low, vmax=high)
            grid.set_title(_summary(kernels[name], layer.softmax, low, high), fontsize=8)
    return _render(figure)


def draw_receptive_fields(
    image: Image, fields: Mapping[str, Mapping[str, Array]], pixels: Mapping[str, Pixel]
) -> Image:
    """Draw the effective receptive fields of each pixel (rows) and stage (columns) over the grey image.

    The fields are blurred, because max pooling passes the gradient to only one pixel in four.

    Args:
        image: Input image, (H, W, 3) in RGB order.
        fields: Result of :func:`effective_receptive_field` for each pixel, by the name of the pixel.
        pixels: Pixels (x, y) by name.

    Returns:
        The figure as an RGB array.
    """
    stages = list(next(iter(fields.values())))
    figure = Figure((PANEL * len(stages), PANEL * 1.25 * len(pixels)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(pixels), len(stages), squeeze=False)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for row, (name, pixel) in zip(axes, pixels.items(), strict=True):
        for axis, stage in zip(row, stages, strict=True):
            field = fields[name][stage][: image.shape[0], : image.shape[1]]
            # The fourth root makes the outer parts visible, which are smaller by orders of magnitude.
            shade = cv2.GaussianBlur(field, (0, 0), max(image.shape) / 128)
            shade = (shade / max(float(shade.max()), 1e-30)) ** 0.25
            axis.imshow(grey, cmap="gray", vmin=-64, vmax=320)
            axis.imshow(shade, cmap="inferno", norm=Normalize(0, 1), alpha=np.clip(shade * 1.2, 0, 0.9))
            axis.plot(*pixel, "+", color="cyan", markersize=7)
            axis.set_title(f"{name}, {stage}\nhalf within {half_radius(field, pixel):.0f} px", fontsize=8)
            axis.set_axis_off()
    return _render(figure)


def _draw_whole(axis: Axes, image: Image, layers: Sequence[LayerWeights], name: str, pixel: Pixel) -> None:
    """Draw the image with the outlines of the footprints of all layers."""
    axis.imshow(image)
    for index, layer in enumerate(layers):
        left, top, right, bottom = layer.box(pixel)
        colour = COLOURS[index % len(COLOURS)]
        box = Rectangle(
            (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.2
        )
        axis.add_patch(box)
    axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    axis.set_title(f"{name}, x {pixel[0]} y {pixel[1]}\nfootprints of all columns", fontsize=8)


def _draw_legend(axis: Axes, name: str, softmax: bool) -> None:
    axis.text(0.5, 0.62, f"the weights at {name},\none kernel for\neach weight channel", ha="center", fontsize=8)
    bar = axis.inset_axes((0.12, 0.4, 0.76, 0.07))
    bar.imshow(np.linspace(0, 1, 64)[None], cmap=_colour_map(softmax), aspect="auto")
    bar.set_yticks([])
    bar.set_xticks(
        [0, 63] if softmax else [0, 31.5, 63], ["min", "max"] if softmax else ["-max", "0", "max"], fontsize=7
    )


def _draw_footprint(
    axis: Axes, image: Image, layer: LayerWeights, pixel: Pixel, footprint: Array, brightest: float
) -> None:
    """Draw the grey image around the footprint, with the footprint as a heat map."""
    height, width = image.shape[:2]
    left, top, right, bottom = layer.box(pixel)
    margin = max((right - left) // 5, 2)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    axis.imshow(grey, cmap="gray", vmin=-32, vmax=287)
    axis.imshow(footprint, cmap="inferno", vmin=0, vmax=max(brightest, 1e-30), alpha=0.65 * (footprint > 0))
    axis.plot(*pixel, "+", color="cyan", markersize=6)
    axis.set_xlim(max(left - margin, 0) - 0.5, min(right + margin, width) - 0.5)
    axis.set_ylim(min(bottom + margin, height) - 0.5, max(top - margin, 0) - 0.5)


def _limits(kernels: Sequence[Array], softmax: bool) -> tuple[float, float]:
    """Return the range of the colour scale: minimum and maximum after a softmax, otherwise symmetric around 0."""
    low, high = min(float(kernel.min()) for kernel in kernels), max(float(kernel.max()) for kernel in kernels)
    return (low, high) if softmax else (-max(-low, high), max(-low, high))


def _summary(kernels: Array, softmax: bool, low: float, high: float) -> str:
    """Summarise kernels by their colour range and their entropy, or their mean absolute weight without a softmax."""
    if softmax:
        return f"{low:.2g} to {high:.2g}, entropy {entropy(kernels):.3f}"
    return f"±{high:.2g}, mean |w| {np.abs(kernels).mean():.2g}"


def _colour_map(softmax: bool) -> str:
    """Return a sequential colour map for positive weights, and a diverging one for weights of both signs."""
    return "inferno" if softmax else "RdBu_r"


def _mosaic(kernels: Array) -> Array:
    """Arrange kernels (Cw, Kh, Kw) in a grid, separated by NaN."""
    if len(kernels) > 36:
        kernels = kernels[np.linspace(0, len(kernels) - 1, 36).round().astype(int)]
    columns = int(np.ceil(np.sqrt(len(kernels))))
    rows = -(-len(kernels) // columns)
    padded = np.pad(kernels, ((0, rows * columns - len(kernels)), (0, 1), (0, 1)), constant_values=np.nan)
    padded[len(kernels) :] = np.nan
    height, width = padded.shape[1:]
    grid = padded.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    return grid[:-1, :-1]


def _render(figure: Figure) -> Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
