"""Command line of ``python -m sa_layers.convert SRC DST``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.reading import TRUST
from ..command_line import command
from . import convert_checkpoint


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 for success, 1 for failure, 2 for invalid arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.convert",
        description="Convert a checkpoint of the official SAN code (github.com/hszhao/SAN), of mmengine, of timm or of "
        "SelfAttentionClassifier to a checkpoint for SAN classifiers and backbones in mmpretrain, mmdet and mmseg. The "
        "network and the layout of the file are detected automatically.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="checkpoint to convert")
    parser.add_argument("destination", metavar="DST", type=Path, help="file to write")
    parser.add_argument("--to-official", action="store_true", help="write a checkpoint of the official code")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    given = parser.parse_args(argv)
    architecture = convert_checkpoint(given.source, given.destination, given.to_official, given.trust)
    print(f"wrote {given.destination}: {architecture}.")
    if not given.to_official:
        options = ", ".join(f"{name}={value!r}" for name, value in architecture.backbone.items())
        print(f"backbone=dict({options})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
