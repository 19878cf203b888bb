"""Command line of ``python -m sa_layers.complexity``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn

from ..command_line import command, integer, integers
from ..layers import ATTENTIONS
from ..layers.self_attention import SHARED_TRANSFORMS
from ..models import SelfAttentionNetwork
from ..models.self_attention_network import STAGES
from .count import Complexity, count
from .networks import RESNETS, resnet, san
from .paper import PAPER
from .table import table

PAPER_SIZE, PAPER_CLASSES = (224, 224), 1000
MAX_BLOCKS, MAX_CHANNELS, MAX_SIDE = 1000, 2**20, 2**16  # larger ones overflow counts or take hours
Networks = dict[str, nn.Module | None]


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 for success, 2 for invalid arguments."""
    parser = _parser()
    given = parser.parse_args(argv)
    size = given.size if len(given.size) == 2 else given.size * 2
    options = {name: value for name, value in vars(given).items() if name in _OPTIONS and value is not None}
    try:
        networks = _custom_network(options, given.classes) if options else _paper_networks(given.classes)
        counted = {name: None if network is None else count(network, size) for name, network in networks.items()}
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    if given.layers:
        for name, complexity in counted.items():
            if complexity is not None:
                print(name, _layer_table(complexity), sep="\n", end="\n\n")
    print(f"One image of {size[0]} x {size[1]} pixels, {given.classes} classes, evaluation mode.")
    same_setting = (tuple(size), given.classes) == (PAPER_SIZE, PAPER_CLASSES)
    with_paper = same_setting and not PAPER.keys().isdisjoint(counted)
    print(_network_table(counted, with_paper))
    print(_NOTES)
    if with_paper:
        print(_PAPER_NOTE)
    if None in counted.values():
        print("The ResNets need torchvision, which is not installed.")
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
multiply-adds: counted by the rules of the official code. A multiply-add of a convolution counts as one operation.
Relations and aggregations are included, softmax and residual additions are not.
torch: FLOPs counted by torch.utils.flop_counter. A multiply-add counts as two operations. Convolutions and matrix
products are included, and relations and aggregations if the native kernels are installed."""
_PAPER_NOTE = """\
top-1, top-5: accuracies from the paper, in percent, on ImageNet's validation set with a single crop. We have not
trained these networks."""


def _paper_networks(classes: int) -> Networks:
    """Make the networks of the paper's table, in the same order."""
    networks: Networks = {}
    for counterpart, depth in zip(RESNETS, SelfAttentionNetwork.arch_settings, strict=True):
        networks[f"ResNet{counterpart}"] = resnet(counterpart, classes)
        for attention in ATTENTIONS:
            networks[f"SAN{depth} {attention}"] = san(classes, depth=depth, attention=attention)
    return networks


def _custom_network(options: dict[str, Any], classes: int) -> Networks:
    options = {"depth": 10, "attention": "pairwise"} | options
    if "position" in options and options["position"] == "none":
        options["position"] = None
    others = [f", {name}={value!r}" for name, value in options.items() if name not in ("depth", "attention")]
    return {f"SAN{options['depth']} {options['attention']}{''.join(others)}": san(classes, **options)}


def _network_table(counted: dict[str, Complexity | None], with_paper: bool) -> str:
    rows = [["", "parameters", "multiply-adds", "torch"]]
    if with_paper:
        rows[0] += ["paper: parameters", "multiply-adds", "top-1", "top-5"]
    for name, complexity in counted.items():
        row = [name, "-", "-", "-"]
        if complexity is not None:
            row[1:] = [f"{complexity.parameters:,}", _billions(complexity.multiply_adds), _billions(complexity.flops)]
        if with_paper:
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


def _depth(text: str) -> int | tuple[int, ...]:
    blocks = integers(1, MAX_BLOCKS, counts=(1, STAGES))(text)
    return blocks if "," in text else blocks[0]


def _parser() -> argparse.ArgumentParser:
    stages = partial(integers, 1, counts=(STAGES,))
    parser = argparse.ArgumentParser(
        prog="python -m sa_layers.complexity",
        description="Count the parameters and multiply-adds of the paper's networks and compare them with the paper's "
        "figures, or count those of one network given by its arguments. Values for several stages are separated by "
        "commas.",
    )
    parser.add_argument("--depth", type=_depth, metavar="N", help="10, 15, 19 or the number of blocks of each stage")
    parser.add_argument("--attention", choices=ATTENTIONS, help="kind of attention")
    parser.add_argument("--relation", help="relation of the attention, such as subtraction")
    parser.add_argument("--position", choices=["relative", "absolute", "none"], help="position encoding")
    parser.add_argument(
        "--mapping-layers", type=integer(1, 3), metavar="N", help="linear layers of the mapping: 1, 2 or 3"
    )
    parser.add_argument(
        "--shared-transforms",
        choices=[name for name in SHARED_TRANSFORMS if name],
        help="query, key and value transforms that share their parameters",
    )
    parser.add_argument(
        "--share", type=integer(1, MAX_CHANNELS), metavar="N", help="number of channels that share a weight"
    )
    parser.add_argument(
        "--kernel-sizes", type=stages(maximum=MAX_SIDE), metavar="K,...", help="footprint size of each stage"
    )
    parser.add_argument(
        "--widths", type=stages(maximum=MAX_CHANNELS), metavar="C,...", help="number of channels of each stage"
    )
    parser.add_argument(
        "--classes", type=integer(1, MAX_CHANNELS), default=PAPER_CLASSES, metavar="N", help="classes (default: 1000)"
    )
    parser.add_argument(
        "--size",
        type=integers(1, MAX_SIDE, counts=(1, 2)),
        default=PAPER_SIZE,
        metavar="H[,W]",
        help="image size in pixels (default: 224)",
    )
    parser.add_argument("--layers", action="store_true", help="also list the layers of each network")
    return parser


if __name__ == "__main__":
    sys.exit(main())
