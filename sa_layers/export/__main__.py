"""Command line of ``python -m sa_layers.export``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch
from torch import nn

from ..checkpoints.reading import TRUST
from ..command_line import command, image_size, integer
from ..layers import ATTENTIONS
from ..models import SelfAttentionNetwork
from . import (
    FORMATS,
    custom_operators_library,
    export,
    find,
    load_openmmlab,
    make_network,
    verify,
    why_not_banded,
    why_not_custom,
)
from .formats import check_path
from .timing import time_program
from .verification import check_sizes


@command("export")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 for success, 2 for invalid arguments or a failed check."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.export",
        usage="%(prog)s [options] ([CONFIG [CHECKPOINT]] | --depth D --attention A) OUT",
        description="Export a SAN, or the model of an OpenMMLab config, as a program with dynamic "
        "batch and image sizes. The command runs the program at two image sizes and prints its largest difference from "
        "the model, and then the time that each takes for one image.",
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="CONFIG: config of mmseg, mmpretrain or mmdet (backbone and neck); CHECKPOINT: checkpoint of its model "
        "(default: random parameters); OUT: file to write, .onnx or .pt2",
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
    parser.add_argument(
        "--threads",
        type=integer(1, 1024),
        metavar="N",
        help="number of CPU threads for which the program and the model are timed (default: torch's default)",
    )
    parser.add_argument(
        "--custom-ops",
        action="store_true",
        help="write attentions as custom operators, and compile the library for onnxruntime that the file then needs",
    )
    given = parser.parse_intermixed_args(argv)
    *source, out = given.files
    san = given.depth is not None and given.attention is not None
    if not (san and not source) and not (0 < len(source) < 3 and not (given.depth or given.attention)):
        parser.error("give either CONFIG [CHECKPOINT] OUT, or --depth and --attention with OUT")
    if source and given.checkpoint is not None:
        parser.error("--checkpoint cannot be used with a CONFIG: give CONFIG CHECKPOINT OUT")

    if given.custom_ops and given.format != "onnx":
        parser.error(f"--custom-ops cannot be used with --format {given.format}")
    check_path(out, find(given.format))
    library = custom_operators_library() if given.custom_ops else None
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    progress = Progress()
    model = _make_model(given, source)
    check_sizes(model, given.sizes)
    if given.format == "onnx":
        _print_exceptions(model, given.custom_ops)
    export(model, out, given.format, progress=progress, custom_operators=given.custom_ops)
    progress("verifying")
    largest = verify(model, out, given.format, given.sizes)
    progress("timing")
    of_program, of_model = time_program(model, out, given.format, given.sizes[0])
    sizes = " and ".join(f"{height}x{width}" for height, width in given.sizes)
    print(f"wrote {out} ({given.format}): differs from the model by at most {largest:.1e} at {sizes}")
    (height, width), threads = given.sizes[0], torch.get_num_threads()
    runtime = "onnxruntime" if given.format == "onnx" else given.format
    print(
        f"one image of {height}x{width} on {threads} thread{'s' * (threads > 1)}: {of_program.median * 1000:.3g} ms in "
        f"{runtime}, {of_model.median * 1000:.3g} ms as a module in torch"
    )
    if library is not None:
        print(f"the custom operators of the file are in {library}")
    return 0


class Progress:
    """A printer of steps to standard error, with the seconds since the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, step: str) -> None:
        """Print a step that begins."""
        print(f"{time.monotonic() - self._begin:6.1f} s  {step}", file=sys.stderr, flush=True)


def _print_exceptions(model: nn.Module, custom_operators: bool) -> None:
    """Print how many attentions are exported in a slower form, and the reason for the first of them."""
    form, exceptions = "band graph", why_not_banded(model)
    if custom_operators:
        form, exceptions = "custom operator", why_not_custom(model)
    if exceptions:
        name, reason = next(iter(exceptions.items()))
        print(f"{len(exceptions)} attentions have no {form} and will be slower: {name}: {reason}", file=sys.stderr)


def _make_model(given: argparse.Namespace, source: Sequence[str]) -> nn.Module:
    if source:
        config, checkpoint = source if len(source) == 2 else (source[0], None)
        return load_openmmlab(config, checkpoint, given.trust)
    return make_network(given.depth, given.attention, given.checkpoint, given.trust)


if __name__ == "__main__":
    sys.exit(main())
