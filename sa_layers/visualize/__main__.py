"""Command line of ``python -m sa_layers.visualize``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sa_layers.checkpoints.reading import TRUST
from sa_layers.command_line import command, integer
from sa_layers.extras import require
from sa_layers.output_file import check_output, make_parent, output_file
from sa_layers.visualize.errors import VisualizationError

if TYPE_CHECKING:
    from sa_layers.visualize.weights import LayerWeights

MAX_SIDE = 512
"""Larger images are resized to this longer side, because the weights of all layers are kept in memory."""


def visualize(
    image: str | Path,
    config: str | Path,
    checkpoint: str | Path | None = None,
    pixels: Mapping[str, tuple[int, int]] | None = None,
    out: str | Path = "attention",
    trust: bool = False,
    page: bool = False,
) -> list[LayerWeights]:
    """Draw attention weights and receptive fields of a config's model, and print measures of the weights.

    Args:
        image: Image file. Images with a side of more than 512 pixels are resized.
        config: Config file of mmseg, mmdet or mmpretrain.
        checkpoint: Checkpoint of the model. Defaults to None, which uses the initial parameters.
        pixels: Pixels (x, y) of the image at which to draw, by name. Defaults to a pixel on an edge and a pixel in a
            flat region.
        out: Folder in which weights.png and receptive_field.png are written. Defaults to 'attention'.
        trust: Whether to unpickle objects of any class in the checkpoint, which executes code that the file chooses.
            Defaults to False.
        page: Whether to also write index.html, a page that shows the weights of the pixel under the pointer. Defaults
            to False.

    Returns:
        The weights of every layer.

    Raises:
        ConfigError: If the config cannot be used.
        OutputError: If the pictures cannot be written.
        VisualizationError: If another argument cannot be used.
    """
    require("visualize", "numpy", "cv2", "matplotlib")
    # Imported here so that --help does not need these packages.
    import cv2

    from sa_layers.visualize.drawing import draw_receptive_fields, draw_weights
    from sa_layers.visualize.geometry import check_pixel
    from sa_layers.visualize.openmmlab import load_model, preprocess
    from sa_layers.visualize.page import Photograph, write_page
    from sa_layers.visualize.pixels import choose_pixels
    from sa_layers.visualize.receptive_field import effective_receptive_field
    from sa_layers.visualize.weights import attention_weights, last_of_each_stage

    photograph = cv2.imread(str(image), cv2.IMREAD_COLOR) if Path(image).is_file() else None
    if photograph is None:
        raise VisualizationError(f"image {image} is missing or is not an image")
    height, width = photograph.shape[:2]
    for pixel in (pixels or {}).values():
        check_pixel(pixel, (height, width))
    folder = Path(out)
    check_output(folder / "weights.png", make_folder=True)
    scale = min(1.0, MAX_SIDE / max(height, width))
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        photograph = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
        pixels = {name: (int(x * scale), int(y * scale)) for name, (x, y) in (pixels or {}).items()}
    pixels = dict(pixels or choose_pixels(photograph.astype("uint8", copy=False)))
    model = load_model(config, checkpoint, trust)
    inputs = preprocess(model, photograph)
    layers = attention_weights(model, inputs)
    fields = {name: effective_receptive_field(model, inputs, pixel) for name, pixel in pixels.items()}
    rgb = cv2.cvtColor(photograph, cv2.COLOR_BGR2RGB).astype("uint8", copy=False)
    stages = last_of_each_stage(layers)
    pictures = {
        "weights.png": draw_weights(rgb, stages, pixels),
        "receptive_field.png": draw_receptive_fields(rgb, fields, pixels),
    }
    for name, picture in pictures.items():
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        make_parent(folder / name)
        with output_file(folder / name) as partial:
            partial.write_bytes(png.tobytes())
    if page:
        write_page(
            folder / "index.html", [Photograph(Path(image).name, rgb, layers)], f"Attention in {Path(image).name}"
        )
    print_measures(layers, pixels)
    print(f"pictures: {', '.join(str(folder / name) for name in pictures)}")
    if page:
        print(f"page: {folder / 'index.html'}")
    return layers


def print_measures(layers: Sequence[LayerWeights], pixels: Mapping[str, tuple[int, int]]) -> None:
    """Print the mean absolute weight and entropy of each layer at every pixel, and the difference of the first two."""
    from sa_layers.visualize.measures import difference, entropy

    print(", ".join(f"{name} at x {x} y {y}" for name, (x, y) in pixels.items()))
    headings = [f"{measure}, {name}" for measure in ("mean |w|", "entropy") for name in pixels]
    if len(pixels) > 1:
        headings.append("difference, {} - {}".format(*pixels))
    name_width = max(len(layer.name) for layer in layers)
    print(f"{'layer':{name_width}}", *headings, sep="  ")
    for layer in layers:
        kernels = [layer.kernels(pixel) for pixel in pixels.values()]
        values = [float(abs(kernel).mean()) for kernel in kernels] + [entropy(kernel) for kernel in kernels]
        if len(kernels) > 1:
            values.append(difference(*kernels[:2]))
        cells = [f"{value:{len(heading)}.3f}" for value, heading in zip(values, headings, strict=True)]
        print(f"{layer.name:{name_width}}", *cells, sep="  ")


@command("visualize")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 for success, 1 for failure, 2 for invalid arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.visualize",
        description="Draw the attention weights and the effective receptive fields of a model at some pixels of an "
        "image, and print measures of the weights. Entropy is 1 if all weights of a footprint have the same absolute "
        "value and 0 if only one is nonzero. Difference is 0 if the weights of two footprints are equal and about 1 "
        "or more if they are unrelated.",
    )
    parser.add_argument("image", metavar="IMAGE", help=f"image file; resized if a side exceeds {MAX_SIDE} pixels")
    parser.add_argument("config", metavar="CONFIG", help="config file of mmseg, mmdet or mmpretrain")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", nargs="?", help="checkpoint of the model (default: initial parameters)"
    )
    parser.add_argument(
        "--pixel",
        metavar=("X", "Y"),
        nargs=2,
        type=integer(0),
        action="append",
        help="pixel of the image; can be repeated (default: a pixel on an edge and a pixel in a flat region)",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", default="attention", help="folder of the pictures (default: attention)"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="also write index.html, which shows the weights of the pixel under the pointer",
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    given = parser.parse_args(argv)
    pixels = {f"pixel {number}": (x, y) for number, (x, y) in enumerate(given.pixel or [], start=1)}
    visualize(given.image, given.config, given.checkpoint, pixels, given.out, given.trust, given.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
