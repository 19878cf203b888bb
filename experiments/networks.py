"""The networks that are compared: ResNets, SANs, and SANs with one choice of the paper changed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from sa_layers.benchmark.candidates import RESNETS
from sa_layers.complexity import count
from sa_layers.models import SelfAttentionClassifier

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(NamedTuple):
    """How a network is made, and its name in tables."""

    title: str
    options: dict[str, Any]
    """Arguments of :class:`SelfAttentionClassifier`, or for a ResNet its blocks in each stage."""
    base: str
    """The network of which this is a variant, whose learning rate it takes; its own name if it is none."""


def _networks() -> dict[str, Network]:
    networks: dict[str, Network] = {}
    for depth, (resnet, blocks) in RESNETS.items():
        networks[f"resnet{resnet}"] = Network(f"ResNet-{resnet}", {"blocks": blocks}, f"resnet{resnet}")
        for attention in ("pairwise", "patchwise"):
            name = f"san{depth}-{attention}"
            networks[name] = Network(f"SAN{depth} {attention}", {"depth": depth, "attention": attention}, name)

    def add(attention: str, suffix: str, title: str, **options: Any) -> None:
        base = networks[f"san10-{attention}"]
        name = f"san10-{attention}-{suffix}"
        networks[name] = Network(f"{base.title}, {title}", base.options | options, base.base)

    for relation in ("summation", "concatenation", "hadamard", "dot"):
        add("pairwise", relation, relation, relation=relation)
    for relation in ("star", "clique"):
        add("patchwise", relation, relation, relation=relation)
    add("pairwise", "position-none", "no position", position=None)
    add("pairwise", "position-absolute", "absolute position", position="absolute")
    for attention in ("pairwise", "patchwise"):
        for side in (3, 5, 9, 11):
            add(attention, f"{side}x{side}", f"{side} x {side}", kernel_sizes=(3, *[side] * 4))
    return networks


NETWORKS = _networks()


def make_network(name: str, classes: int, seed: int) -> nn.Module:
    """Make a network with random parameters, on the CPU.

    Args:
        name: A key of :data:`NETWORKS`.
        classes: Number of classes.
        seed: Seed of the parameters.

    Example:
        >>> make_network("san10-pairwise-dot", 10, seed=0)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 10])
    """
    options = NETWORKS[name].options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "blocks" in options:
            # oneDNN and cuDNN train a ResNet faster channels last; SANs choose their layout themselves.
            return ResNet(Bottleneck, list(options["blocks"]), num_classes=classes).to(
                memory_format=torch.channels_last
            )
        return SelfAttentionClassifier(num_classes=classes, **options)


class Normalized(nn.Module):
    """A network that takes images from 0 to 1 and normalises them itself, as an attack requires."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for name, values in {"mean": MEAN, "std": STD}.items():
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) from 0 to 1 -> logits (N, classes)."""
        normalized = (image - self.mean) / self.std
        return self.network(normalized.contiguous(memory_format=torch.channels_last))


def cost(name: str, classes: int, size: int) -> dict[str, int]:
    """Count parameters, and multiply-adds for one image by the rules of the official code."""
    counted = count(make_network(name, classes, seed=0), (size, size))
    return {"parameters": counted.parameters, "multiply_adds": counted.multiply_adds}
