"""Command line of ``python -m sa_layers.export``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from torch import nn

from ..checkpoints.reading import TRUST
from ..command_line import command, image_size
from ..layers import ATTENTIONS
from ..models import SelfAttentionNetwork
from . import FORMATS, export, find, load_openmmlab, make_network, verify
from .formats import check_path
from .verification import check_sizes


@command("export")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 for success, 2 for invalid arguments or a failed check."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.export",
        usage="%(prog)s [options] ([CONFIG [CHECKPOINT]] | --depth D --attention A) OUT",
        description="Export a SAN, or the segmentor or classifier of an OpenMMLab config, as a program with dynamic "
        "batch and image sizes. The exported program is run at two image sizes, and its largest difference from the "
        "model is printed.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="CONFIG: config of mmseg or mmpretrain; CHECKPOINT: checkpoint of its model (default: random parameters); "
        "OUT: file to write, .onnx or .pt2",
    )
    parser.add_argument(
        "--depth", type=int, choices=SelfAttentionNetwork.arch_settings, help="depth of the SAN, without a CONFIG"
    )
    parser.add_argument("--attention", choices=ATTENTIONS, help="attention of the SAN, without a CONFIG")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="checkpoint of the SAN, without a CONFIG (default: random parameters)"
    )
    parser.add_argument("--trust", action="store_true", help=TRUST)
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="format of the program (default: onnx)")
    parser.add_argument(
        "--sizes",
        metavar="HxW",
        nargs=2,
        type=image_size(1, 2**14),
        default=[(224, 224), (320, 256)],
        help="image sizes at which the program is verified (default: 224x224 320x256)",
    )
    given = parser.parse_intermixed_args(argv)
    *source, out = given.files
    san = given.depth is not None and given.attention is not None
    if not (san and not source) and not (0 < len(source) < 3 and not (given.depth or given.attention)):
        parser.error("give either CONFIG [CHECKPOINT] OUT, or --depth and --attention with OUT")
    if source and given.checkpoint is not None:
        parser.error("--checkpoint cannot be used with a CONFIG: give CONFIG CHECKPOINT OUT")

    check_path(out, find(given.format))
    model = _make_model(given, source)
    check_sizes(model, given.sizes)
    export(model, out, given.format)
    largest = verify(model, out, given.format, given.sizes)
    sizes = " and ".join(f"{height}x{width}" for height, width in given.sizes)
    print(f"wrote {out} ({given.format}): differs from the model by at most {largest:.1e} at {sizes}")
    return 0


def _make_model(given: argparse.Namespace, source: Sequence[str]) -> nn.Module:
    if source:
        config, checkpoint = source if len(source) == 2 else (source[0], None)
        return load_openmmlab(config, checkpoint, given.trust)
    return make_network(given.depth, given.attention, given.checkpoint, given.trust)


if __name__ == "__main__":
    sys.exit(main())
