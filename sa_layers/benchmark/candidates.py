"""The networks that are timed: SANs and the ResNets that they replace, in several versions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..extras import importing
from ..models import SelfAttentionClassifier
from ..ops import backend, fused
from .training import TrainingStep, prepare_training

# For each SAN depth, the depth and the blocks of the ResNet that the paper compares it with.
RESNETS = {10: (26, (1, 2, 4, 1)), 15: (38, (2, 3, 5, 2)), 19: (50, (3, 4, 6, 3))}
ATTENTIONS = ("pairwise", "patchwise")
COMPILED, AMP = "compiled: ", "AMP: "


class Candidate(NamedTuple):
    """A network, its input and the context in which it is called."""

    model: nn.Module
    image: Tensor
    context: Callable[[], AbstractContextManager[None]] = nullcontext
    """Selects a backend or disables the fused operators. Defaults to the settings that users get."""
    amp: bool = False
    """Whether the network is called under autocast to bfloat16."""
    compiled: Callable[[Tensor], Tensor] | None = None
    """The compiled network, or None for the network itself."""

    @property
    def is_default(self) -> bool:
        """Whether the network has the settings that users get."""
        return self.context is nullcontext

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Enter the context and, if asked for, autocast."""
        with self.context(), torch.autocast(self.image.device.type, torch.bfloat16, enabled=self.amp):
            yield

    def classify(self) -> Tensor:
        """Return the logits of the images, in the mode of the network and with its gradients."""
        with self.autocast():
            return (self.model if self.compiled is None else self.compiled)(self.image)


def make_candidates(depth: int, attentions: Sequence[str], image: Tensor) -> dict[str, Candidate]:
    """Make the networks of one depth, by name, in several versions."""
    candidates = {}
    for name, model in make_networks(depth, attentions).items():
        model.to(image.device, image.dtype)
        candidates[name] = Candidate(model, image)
        if isinstance(model, SelfAttentionClassifier):
            candidates[f"{name}, unfused"] = Candidate(model, image, partial(fused, False))
            candidates[f"{name}, plain torch"] = Candidate(model, image, partial(backend, "torch"))
        else:
            other, channels_last = arranged(model), image.to(memory_format=torch.channels_last)
            candidates[f"{name}, channels last"] = Candidate(other, channels_last)
    return candidates


def make_networks(depth: int, attentions: Sequence[str]) -> dict[str, nn.Module]:
    """Make the SANs of one depth and the ResNet that they replace, by name."""
    with importing("benchmark"):
        from torchvision.models.resnet import Bottleneck, ResNet

    made: dict[str, nn.Module] = {f"SAN{depth} {name}": SelfAttentionClassifier(depth, name) for name in attentions}
    resnet_depth, blocks = RESNETS[depth]
    return made | {f"ResNet-{resnet_depth}": ResNet(Bottleneck, list(blocks))}


def arranged(model: nn.Module) -> nn.Module:
    """Return a copy of a network with channels-last weights."""
    other: Any = copy.deepcopy(model)
    return other.to(memory_format=torch.channels_last)


def add_amp(candidates: dict[str, Candidate]) -> None:
    """Add the networks under autocast to bfloat16, except those in plain torch."""
    for name, candidate in list(candidates.items()):
        if not name.endswith("plain torch"):
            candidates[f"{AMP}{name}"] = candidate._replace(amp=True)


def add_compiled(candidates: dict[str, Candidate]) -> None:
    """Add compiled versions of the networks with default settings."""
    torch.compiler.reset()  # earlier shapes would count towards the recompilation limit
    for name, candidate in list(candidates.items()):
        if candidate.is_default:
            compiled: Any = torch.compile(candidate.model, dynamic=False)
            candidates[f"{COMPILED}{name}"] = candidate._replace(compiled=compiled)


def unfused_version(name: str) -> str:
    """Return the name of the version without fused operators, under autocast if ``name`` is.

    Example:
        >>> unfused_version("SAN10 pairwise"), unfused_version("AMP: SAN10 pairwise, unfused")
        ('SAN10 pairwise, unfused', 'AMP: SAN10 pairwise, unfused')
    """
    return name.removeprefix(COMPILED).partition(",")[0] + ", unfused"


def inference(candidate: Candidate) -> Callable[[], Tensor]:
    """Return a function that classifies the images."""
    candidate.model.eval()
    return torch.no_grad()(candidate.classify)


def training_step(candidate: Candidate, frozen: str = "nothing") -> TrainingStep:
    """Return a training step of which a part may be frozen; see :data:`.training.FROZEN`."""
    prepare_training(candidate.model, frozen, early_layers(candidate.model))
    target = torch.zeros(len(candidate.image), dtype=torch.long, device=candidate.image.device)

    def loss() -> Tensor:
        with candidate.autocast():
            return F.cross_entropy(candidate.classify(), target)

    return TrainingStep(loss, candidate.model.parameters())


def early_layers(model: nn.Module) -> list[nn.Module]:
    """Return what ``frozen_stages=1`` freezes: stem and stage 1. Stage 0 of a SAN is a part of a ResNet's stem."""
    network: Any = model
    if isinstance(model, SelfAttentionClassifier):
        return [network.network.stem, *network.network.stages[:2]]
    return [network.conv1, network.bn1, network.layer1]
