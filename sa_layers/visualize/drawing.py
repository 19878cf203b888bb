"""Pictures of attention weights and receptive fields: figures of matplotlib, given back as RGB images."""

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
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00")  # told apart by the colour-blind too
PANEL = 1.9  # inches
DPI = 110


def draw_weights(image: Image, layers: Sequence[LayerWeights], pixels: Mapping[str, Pixel]) -> Image:
    """For each pixel and layer, where the footprint looks and the kernels themselves.

    Two rows for a pixel. The first shows the footprint in the image, its taps as bright as their mean absolute weight,
    and brighter where reflection reads a pixel twice; the second the kernels of all weight channels (at most 36, evenly
    picked). A column has one scale for all pixels, so that they can be compared.

    Args:
        image: (H, W, 3), RGB: what the model was given, without padding.
        layers: The columns.
        pixels: (x, y) by a name to call it, such as 'edge'.

    Returns:
        The picture, RGB.
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
    """The effective receptive field of each pixel (rows) and stage (columns), over the image in grey.

    Fields are blurred by a pixel in 128: max-pooling leaves a gradient to one pixel in four.

    Args:
        image: (H, W, 3), RGB.
        fields: For each pixel's name, what :func:`effective_receptive_field` gave.
        pixels: (x, y) by name.

    Returns:
        The picture, RGB.
    """
    stages = list(next(iter(fields.values())))
    figure = Figure((PANEL * len(stages), PANEL * 1.25 * len(pixels)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(pixels), len(stages), squeeze=False)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    for row, (name, pixel) in zip(axes, pixels.items(), strict=True):
        for axis, stage in zip(row, stages, strict=True):
            field = fields[name][stage][: image.shape[0], : image.shape[1]]
            # Fourth root: fields fall off by orders of magnitude, and their rims are of interest.
            shade = cv2.GaussianBlur(field, (0, 0), max(image.shape) / 128)
            shade = (shade / max(float(shade.max()), 1e-30)) ** 0.25
            axis.imshow(grey, cmap="gray", vmin=-64, vmax=320)
            axis.imshow(shade, cmap="inferno", norm=Normalize(0, 1), alpha=np.clip(shade * 1.2, 0, 0.9))
            axis.plot(*pixel, "+", color="cyan", markersize=7)
            axis.set_title(f"{name}, {stage}\nhalf within {half_radius(field, pixel):.0f} px", fontsize=8)
            axis.set_axis_off()
    return _render(figure)


def _draw_whole(axis: Axes, image: Image, layers: Sequence[LayerWeights], name: str, pixel: Pixel) -> None:
    """The image, and in it the outline of every layer's footprint."""
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
    """The image round the footprint in grey, the footprint in the colours of heat."""
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
    """What the colours range over: after a softmax what occurs, which may differ little, else both signs alike."""
    low, high = min(float(kernel.min()) for kernel in kernels), max(float(kernel.max()) for kernel in kernels)
    return (low, high) if softmax else (-max(-low, high), max(-low, high))


def _summary(kernels: Array, softmax: bool, low: float, high: float) -> str:
    """The range of the colours, and a number that tells footprints apart: after a softmax all sum to 1."""
    if softmax:
        return f"{low:.2g} to {high:.2g}, entropy {entropy(kernels):.3f}"
    return f"±{high:.2g}, mean |w| {np.abs(kernels).mean():.2g}"


def _colour_map(softmax: bool) -> str:
    """Sequential where weights are positive; diverging from 0 where they have either sign."""
    return "inferno" if softmax else "RdBu_r"


def _mosaic(kernels: Array) -> Array:
    """Kernels (Cw, Kh, Kw) side by side, a gap of NaN between them."""
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
