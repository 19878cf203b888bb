"""Random modules in training, with inputs, frozen parts and gradients of outputs; the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from sa_layers.layers import PairwiseSelfAttention, PatchwiseSelfAttention, SelfAttentionBlock
from sa_layers.layers.self_attention import default_act_layer
from sa_layers.models import SelfAttentionClassifier, SelfAttentionNetwork
from sa_layers.models.self_attention_stage import SelfAttentionStage
from sa_layers.ops import PAIRWISE_RELATIONS, PATCHWISE_RELATIONS

from . import frozen
from .gaps import open_gaps

LEVELS = ("layer", "block", "stage", "network", "classifier", "backbone")
MAPPINGS = (1, 2, 3)
SHARED = (None, "query_key", "all")
KINDS = [
    *product(["pairwise"], PAIRWISE_RELATIONS, ("relative", "absolute", None)),
    *product(["patchwise"], PATCHWISE_RELATIONS, [None]),
]
CASES = [
    (level, *kind, mapping_layers, shared, subset)
    for level, kind, mapping_layers, shared, subset in product(LEVELS, KINDS, MAPPINGS, SHARED, frozen.SUBSETS)
]
FORMATS = ("contiguous", "channels last", "sliced", "transposed")


@dataclass
class Problem:
    """A module in training mode and in float64, whose numbers are those of float32; and its input."""

    level: str
    module: nn.Module
    features: Tensor
    options: dict[str, Any]
    margin: float
    """By how much the winners of poolings win, so that rounding less than this leaves them."""

    def __str__(self) -> str:
        shape, strides = tuple(self.features.shape), self.features.stride()
        return f"{self.level} {self.options} of {shape} with strides {strides}\n{self.module}"


def draw(
    level: str,
    attention: str,
    relation: str,
    position: str | None,
    mapping_layers: int,
    shared: str | None,
    subset: str,
    seed: int = 0,
) -> Problem:
    """A problem of one of the ``CASES``."""
    case = (level, attention, relation, position, mapping_layers, shared, subset, seed)
    dice = random.Random(repr(case))
    torch.manual_seed(dice.randrange(2**31))
    options: dict[str, Any] = {"relation": relation, "mapping_layers": mapping_layers, "shared_transforms": shared}
    if attention == "pairwise":
        options["position"] = position
    options["padding_mode"] = dice.choice(("reflect", "zeros"))
    options["act_layer"] = dice.choice((default_act_layer, nn.ReLU))
    options["norm_layer"] = norm_layer(dice)
    module, shape = MAKERS[level](dice, attention, options)
    randomise(module, dice)
    frozen.freeze(module, subset, dice)
    features = draw_features(shape, dice)
    if subset == "input only" or dice.random() < 0.6:
        features.requires_grad_()
    module.double()
    margin = open_gaps(module, features)
    return Problem(level, module, features, options, margin)


def norm_layer(dice: random.Random) -> Callable[[int], nn.Module]:
    """Batch norms whose options are drawn for each, rarely unusual ones."""

    def make(channels: int) -> nn.Module:
        return nn.BatchNorm2d(
            channels,
            eps=dice.choice((1e-5, 1e-5, 1e-3)),
            momentum=dice.choice((0.1, 0.1, 0.3, 1.0, None)),
            track_running_stats=dice.random() < 0.95,
        )

    return make


def footprint(dice: random.Random, relation: str) -> dict[str, Any]:
    """A kernel size and a dilation; few taps for the clique, whose relation has a channel for every pair of them."""
    sizes = (1, 3, 3, 5, 7, (3, 5), (5, 3), (1, 3))
    kernel = dice.choice((3, 3, (1, 3))) if relation == "clique" else dice.choice(sizes)
    return {"kernel_size": kernel, "dilation": dice.choice((1, 1, 1, 2, 3, (2, 1)))}


def make_layer(dice: random.Random, attention: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    share = dice.choice((1, 2, 4, 8))
    channels, out_channels = dice.choice((3, 8, 12, 17, 32)), share * dice.choice((1, 2, 3, 4))
    options |= footprint(dice, options["relation"]) | {
        "share": share,
        "stride": dice.choice((1, 1, 2, 3, (1, 2))),
        "bias": dice.random() < 0.7,
        "relation_channels": out_channels
        if options["shared_transforms"] == "all"
        else dice.choice((1, 2, 4, 5, 8, 16)),
    }
    if options.get("position"):
        options["position_size"] = dice.choice((None, None, 8, (6, 10)))
    kind = PairwiseSelfAttention if attention == "pairwise" else PatchwiseSelfAttention
    return kind(channels, out_channels, **options), (batch(dice), channels, *sides(dice, 1, 3))


def make_block(dice: random.Random, attention: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    channels = widths(dice, options, 1)[0]
    options |= footprint(dice, options["relation"])
    return SelfAttentionBlock(channels, attention=attention, **options), (batch(dice), channels, *sides(dice, 1))


def make_stage(dice: random.Random, attention: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    channels, in_channels = widths(dice, options, 1)[0], dice.choice((5, 16, 24))
    options |= footprint(dice, options["relation"]) | {
        "in_channels": in_channels,
        "blocks": dice.choice((1, 2)),
        "stride": dice.choice((1, 2, 2)),
        "with_cp": dice.random() < 0.15,
    }
    stage = SelfAttentionStage(channels=channels, attention=attention, **options)
    return stage, (batch(dice), in_channels, *sides(dice, options["stride"]))


def network_options(dice: random.Random, options: dict[str, Any]) -> dict[str, Any]:
    stages = dice.choice((1, 2, 2, 3))
    small = options["relation"] == "clique"
    options |= {
        "depth": tuple(dice.choice((1, 1, 2)) for _ in range(5)),
        "in_channels": dice.choice((1, 3, 3, 4)),
        "widths": (widths(dice, options, stages) + [16] * 5)[:5],
        "kernel_sizes": [3 if small else dice.choice((3, 3, 5, 7)) for _ in range(5)],
        "strides": [dice.choice((1, 2, 2, 2)) for _ in range(5)],
        "dilations": [dice.choice((1, 1, 1, 2)) for _ in range(5)],
        "with_cp": dice.random() < 0.15,
        "num_stages": stages,
    }
    if options.get("position"):
        options["position_image_size"] = dice.choice((None, None, 32, (24, 40)))
    return options


def network_shape(dice: random.Random, network: SelfAttentionNetwork, options: dict[str, Any]) -> tuple[int, ...]:
    return (batch(dice), options["in_channels"], *sides(dice, network.min_size))


def make_network(dice: random.Random, attention: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    network_options(dice, options)
    indices = range(options["num_stages"])
    options["out_indices"] = sorted(dice.sample(indices, dice.randint(1, len(indices))))
    network = SelfAttentionNetwork(attention=attention, **options)
    return network, network_shape(dice, network, options)


def make_classifier(dice: random.Random, attention: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    network_options(dice, options)
    model = SelfAttentionClassifier(attention=attention, num_classes=dice.choice((0, 7)), **options)
    return model, network_shape(dice, model.network, options)


def make_backbone(dice: random.Random, attention: str, options: dict[str, Any]) -> tuple[nn.Module, tuple[int, ...]]:
    from sa_layers.backbones import SAN

    network_options(dice, options)
    del options["norm_layer"], options["act_layer"]
    options |= {
        "norm_cfg": {"type": dice.choice(("BN", "SyncBN")), "requires_grad": dice.random() < 0.8},
        "act_cfg": {"type": "ReLU", "inplace": dice.random() < 0.5},
        "norm_eval": dice.random() < 0.5,
        "frozen_stages": dice.choice((-1, -1, 0, 1)),
        "out_indices": range(options["num_stages"]),
    }
    options["frozen_stages"] = min(options["frozen_stages"], options["num_stages"] - 2)
    network = SAN(attention=attention, **options)
    return network.train(), network_shape(dice, network, options)


Maker = Callable[[random.Random, str, dict[str, Any]], tuple[nn.Module, tuple[int, ...]]]
MAKERS: dict[str, Maker] = dict(
    zip(LEVELS, (make_layer, make_block, make_stage, make_network, make_classifier, make_backbone), strict=True)
)


def widths(dice: random.Random, options: dict[str, Any], count: int) -> list[int]:
    """Channels of blocks, for a number of channels that share a weight."""
    options["share"] = dice.choice((1, 2, 4, 8))
    if options["shared_transforms"] == "all":  # a block has as many channels of the relation as of the value
        options["relation_channels"] = 8
        return [32] * count
    allowed = [width for width in (16, 32, 64, 96) if width % (4 * options["share"]) == 0]
    return [dice.choice(allowed[:3]) for _ in range(count)]


def batch(dice: random.Random) -> int:
    return dice.choice((1, 2, 2, 3, 4, 5))


def sides(dice: random.Random, stride: int, steps: int = 1) -> tuple[int, int]:
    """Height and width, odd ones too; at least two pixels behind the stride, which a norm needs for one image."""
    height, width = (dice.choice((1, 2, 3, 5, 7, 8, 9)) for _ in range(2))
    height, width = (min(side, max(2, 12 // stride)) for side in (height, width))
    if height * width < 4 * steps:
        height, width = height + steps, width + steps
    return height * stride + dice.randrange(stride), width * stride + dice.randrange(stride)


def draw_features(shape: tuple[int, ...], dice: random.Random) -> Tensor:
    """A map of any layout in memory, with a mean and a deviation for each channel."""
    numbers = torch.randn(shape) * torch.rand(shape[1], 1, 1).add(0.5)
    numbers += torch.randn(shape[1], 1, 1) * dice.choice((0, 1, 3))
    form = dice.choice(FORMATS)
    batches, channels, height, width = shape
    memory = {
        "contiguous": torch.empty(shape),
        "channels last": torch.empty(batches, height, width, channels).permute(0, 3, 1, 2),
        "sliced": torch.empty(batches, height + 1, width + 2, channels + 3).permute(0, 3, 1, 2)[:, 1:-2, 1:, 1:-1],
        "transposed": torch.empty(batches, channels, width, height).transpose(2, 3),
    }[form]
    return memory.double().copy_(numbers) if memory.is_contiguous() else doubled(memory, numbers)


def doubled(memory: Tensor, numbers: Tensor) -> Tensor:
    """The numbers in float64, with the strides of ``memory``."""
    return torch.empty_strided(memory.shape, memory.stride(), dtype=torch.float64).copy_(numbers)


@torch.no_grad()
def randomise(module: nn.Module, dice: random.Random) -> None:
    """Norms that do something, negative and zero scales among them, and weights of attention far from equal."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.5)
            if dice.random() < 0.3 and part.affine:
                part.weight[dice.randrange(part.num_features)] *= dice.choice((-1, 0))
            if part.running_mean is not None and part.running_var is not None:
                nn.init.normal_(part.running_mean, std=0.3)
                nn.init.uniform_(part.running_var, 0.5, 2)
                part.num_batches_tracked.fill_(dice.choice((0, 3)))
        elif isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=dice.choice((1.0, 1.5)) * part.in_channels**-0.5)
