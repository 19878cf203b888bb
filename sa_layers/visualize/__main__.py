"""The command line: pictures and numbers of what a model's attention attends to in an image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sa_layers.visualize.errors import VisualizationError
from sa_layers.visualize.measures import difference, entropy
from sa_layers.visualize.weights import LayerWeights, attention_weights, last_of_each_stage

LARGEST = 512
"""The longer side to which larger photographs are shrunk: the weights of all layers are held in memory."""

EXTRAS = {"cv2": "visualize", "matplotlib": "visualize", "mmengine": "backbones", "mmcv": "backbones"}
"""What to install for a missing module."""


def visualize(
    image: str | Path,
    config: str | Path,
    checkpoint: str | Path | None = None,
    pixels: Mapping[str, tuple[int, int]] | None = None,
    out: str | Path = "attention",
) -> list[LayerWeights]:
    """Draws the attention weights and the receptive fields of a config's model; prints how footprints differ.

    Args:
        image: A photograph. One of more than 512 pixels a side is shrunk.
        config: A config of mmseg, mmdet or mmpretrain.
        checkpoint: The trained parameters. Defaults to those that training starts from.
        pixels: (x, y) by name, in the photograph. Defaults to one on an edge and one in a flat region.
        out: The folder for weights.png and receptive_field.png.

    Returns:
        The weights of every layer.

    Raises:
        VisualizationError: An argument cannot be used.
    """
    # Imported here: --help needs none of these packages, and main says which of them is missing.
    import cv2

    from sa_layers.visualize.drawing import draw_receptive_fields, draw_weights
    from sa_layers.visualize.geometry import check_pixel
    from sa_layers.visualize.openmmlab import load_model, preprocess
    from sa_layers.visualize.pixels import choose_pixels
    from sa_layers.visualize.receptive_field import effective_receptive_field

    photograph = cv2.imread(str(image), cv2.IMREAD_COLOR) if Path(image).is_file() else None
    if photograph is None:
        raise VisualizationError(f"image {image} is missing or no image")
    height, width = photograph.shape[:2]
    for pixel in (pixels or {}).values():
        check_pixel(pixel, (height, width))
    scale = min(1.0, LARGEST / max(height, width))
    if scale < 1:
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        photograph = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA)
        pixels = {name: (int(x * scale), int(y * scale)) for name, (x, y) in (pixels or {}).items()}
    pixels = dict(pixels or choose_pixels(photograph.astype("uint8", copy=False)))
    model = load_model(config, checkpoint)
    inputs = preprocess(model, photograph)
    layers = attention_weights(model, inputs)
    fields = {name: effective_receptive_field(model, inputs, pixel) for name, pixel in pixels.items()}
    rgb = cv2.cvtColor(photograph, cv2.COLOR_BGR2RGB).astype("uint8", copy=False)
    stages = last_of_each_stage(layers)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "weights.png": draw_weights(rgb, stages, pixels),
        "receptive_field.png": draw_receptive_fields(rgb, fields, pixels),
    }
    for name, picture in pictures.items():
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
            raise VisualizationError(f"{folder / name} cannot be written")
    print_measures(layers, pixels)
    print(f"pictures: {', '.join(str(folder / name) for name in pictures)}")
    return layers


def print_measures(layers: Sequence[LayerWeights], pixels: Mapping[str, tuple[int, int]]) -> None:
    """A line for each layer: size and entropy of the weights at every pixel, how those of the first two differ."""
    print(", ".join(f"{name} at x {x} y {y}" for name, (x, y) in pixels.items()))
    heads = [f"{measure}, {name}" for measure in ("mean |w|", "entropy") for name in pixels]
    if len(pixels) > 1:
        heads.append("difference, {} - {}".format(*pixels))
    longest = max(len(layer.name) for layer in layers)
    print(f"{'layer':{longest}}", *heads, sep="  ")
    for layer in layers:
        kernels = [layer.kernels(pixel) for pixel in pixels.values()]
        values = [float(abs(kernel).mean()) for kernel in kernels] + [entropy(kernel) for kernel in kernels]
        if len(kernels) > 1:
            values.append(difference(*kernels[:2]))
        cells = [f"{value:{len(head)}.3f}" for value, head in zip(values, heads, strict=True)]
        print(f"{layer.name:{longest}}", *cells, sep="  ")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0 done, 1 failed, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.visualize",
        description="Draw what the attention of a model attends to in an image: the weights of footprints, and "
        "effective receptive fields. Entropy is 1 where the weights of a footprint are of equal size, "
        "difference 0 where those of two footprints are equal, about 1 or more where they have little in common.",
    )
    parser.add_argument("image", metavar="IMAGE", help=f"a photograph; shrunk where a side exceeds {LARGEST} pixels")
    parser.add_argument("config", metavar="CONFIG", help="a config of mmseg, mmdet or mmpretrain")
    parser.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", help="trained parameters (default: untrained)")
    parser.add_argument(
        "--pixel",
        metavar=("X", "Y"),
        nargs=2,
        type=int,
        action="append",
        help="a pixel to look at; give it several times (default: one on an edge, one in a flat region)",
    )
    parser.add_argument("--out", metavar="FOLDER", default="attention", help="folder of the pictures (attention)")
    given = parser.parse_args(argv)
    pixels = {f"pixel {number}": (x, y) for number, (x, y) in enumerate(given.pixel or [], start=1)}
    try:
        visualize(given.image, given.config, given.checkpoint, pixels, given.out)
    except VisualizationError as error:
        print(f"error: {error}.", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the pictures cannot be written to {given.out}: {error.strerror or error}.", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        extra = EXTRAS[error.name]
        print(f"error: {error.name} is not installed: pip install 'sa-layers[{extra}]'.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
