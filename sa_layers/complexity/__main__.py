"""``python -m sa_layers.complexity``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..layers import ATTENTIONS
from ..layers.self_attention import SHARED_TRANSFORMS
from ..models import SelfAttentionNetwork
from .count import Complexity, count
from .networks import RESNETS, resnet, san
from .paper import PAPER
from .table import table

PAPER_SIZE, PAPER_CLASSES = (224, 224), 1000
Networks = dict[str, nn.Module | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 wrong arguments."""
    parser = _parser()
    given = parser.parse_args(argv)
    size = given.size if len(given.size) == 2 else given.size * 2
    if len(size) != 2:
        parser.error(f"argument --size: must be one or two numbers of pixels, got {given.size}")
    options = {name: value for name, value in vars(given).items() if name in _OPTIONS and value is not None}
    try:
        networks = _one(options, given.classes) if options else _all(given.classes)
        counted = {name: None if network is None else count(network, size) for name, network in networks.items()}
    except ValueError as error:
        parser.error(str(error))
    if given.layers:
        for name, complexity in counted.items():
            if complexity is not None:
                print(name, _layer_table(complexity), sep="\n", end="\n\n")
    print(f"One image of {size[0]} x {size[1]} pixels, {given.classes} classes, evaluation.")
    as_in_the_paper = (tuple(size), given.classes) == (PAPER_SIZE, PAPER_CLASSES)
    print(_network_table(counted, beside_paper=as_in_the_paper and not PAPER.keys().isdisjoint(counted)))
    print(_NOTES)
    if None in counted.values():
        print("The ResNets are torchvision's, which is not installed.")
    return 0


_OPTIONS = (
    "depth",
    "attention",
    "kernel_sizes",
    "widths",
    "relation",
    "position",
    "mapping_layers",
    "share",
    "shared_transforms",
)
_NOTES = """
multiply-adds: by the official code's counting (a multiply-add of a convolution counts one; relations and aggregations
count, softmax and residual additions do not). torch: floating-point operations by torch.utils.flop_counter, two for a
multiply-add; convolutions, matrix products and, where the native kernels are installed, relations and aggregations.
The paper's accuracies: ImageNet validation, one crop, in percent; no network here has been trained by us."""


def _all(classes: int) -> Networks:
    """As the paper's table has them."""
    networks: Networks = {}
    for counterpart, depth in zip(RESNETS, SelfAttentionNetwork.arch_settings, strict=True):
        networks[f"ResNet{counterpart}"] = resnet(counterpart, classes)
        for attention in ATTENTIONS:
            networks[f"SAN{depth} {attention}"] = san(classes, depth=depth, attention=attention)
    return networks


def _one(options: dict[str, Any], classes: int) -> Networks:
    options = {"depth": 10, "attention": "pairwise"} | options
    if "position" in options and options["position"] == "none":
        options["position"] = None
    others = [f", {name}={value!r}" for name, value in options.items() if name not in ("depth", "attention")]
    return {f"SAN{options['depth']} {options['attention']}{''.join(others)}": san(classes, **options)}


def _network_table(counted: dict[str, Complexity | None], beside_paper: bool) -> str:
    rows = [["", "parameters", "multiply-adds", "torch"]]
    if beside_paper:
        rows[0] += ["paper: parameters", "multiply-adds", "top-1", "top-5"]
    for name, complexity in counted.items():
        row = [name, "-", "-", "-"]
        if complexity is not None:
            row[1:] = [f"{complexity.parameters:,}", _billions(complexity.multiply_adds), _billions(complexity.flops)]
        if beside_paper:
            paper = PAPER.get(name)
            row += (
                ["-"] * 4
                if paper is None
                else [f"{paper.parameters} M", f"{paper.multiply_adds} G", f"{paper.top1}", f"{paper.top5}"]
            )
        rows.append(row)
    return table(rows)


def _layer_table(complexity: Complexity) -> str:
    rows = [["layer", "kind", "output", "parameters", "multiply-adds", "torch"]]
    for layer in complexity.layers:
        if layer.parameters or layer.multiply_adds or layer.flops:
            costs = (layer.parameters, layer.multiply_adds, layer.flops)
            rows.append([layer.name, layer.kind, " x ".join(map(str, layer.output)), *(f"{cost:,}" for cost in costs)])
    return table(rows, left=3)


def _billions(number: int) -> str:
    return f"{number / 1e9:.3f} G"


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _depth(text: str) -> int | tuple[int, ...]:
    return _integers(text) if "," in text else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.complexity",
        description="Parameters and multiply-adds of the paper's networks beside the paper's figures, or of one "
        "network by its arguments. Numbers of several stages are separated by commas.",
    )
    parser.add_argument("--depth", type=_depth, metavar="N", help="10, 15, 19 or the blocks of each stage")
    parser.add_argument("--attention", choices=ATTENTIONS)
    parser.add_argument("--relation", help="of pairwise or patchwise attention")
    parser.add_argument("--position", choices=["relative", "absolute", "none"])
    parser.add_argument("--mapping-layers", type=int, metavar="N", help="linear layers of the mapping: 1, 2 or 3")
    parser.add_argument("--shared-transforms", choices=[name for name in SHARED_TRANSFORMS if name])
    parser.add_argument("--share", type=int, metavar="N", help="channels that share a weight")
    parser.add_argument("--kernel-sizes", type=_integers, metavar="K,...", help="footprint of each stage")
    parser.add_argument("--widths", type=_integers, metavar="C,...", help="channels of each stage")
    parser.add_argument("--classes", type=int, default=PAPER_CLASSES, metavar="N")
    parser.add_argument("--size", type=_integers, default=PAPER_SIZE, metavar="H[,W]", help="pixels of the image")
    parser.add_argument("--layers", action="store_true", help="also every layer of each network")
    return parser


if __name__ == "__main__":
    sys.exit(main())
