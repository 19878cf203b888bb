"""Which network a state dict belongs to, read from names and shapes, and whether it is whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models import SelfAttentionNetwork
from ..models.self_attention_network import STAGES
from .errors import CheckpointError

SHOWN = 3  # of the tensors that do not fit, in a message


class Architecture(NamedTuple):
    """A network of the official code: SAN10, 15, 19 or of other depths, with the published widths and footprints."""

    depth: int | tuple[int, ...]
    attention: str
    classes: int

    @property
    def backbone(self) -> dict[str, Any]:
        """The config of the backbone.

        Example:
            >>> Architecture(19, "patchwise", 1000).backbone
            {'type': 'sa_layers.SAN', 'depth': 19, 'attention': 'patchwise'}
        """
        return {"type": "sa_layers.SAN", "depth": self.depth, "attention": self.attention}

    def __str__(self) -> str:
        """Its name and its number of classes.

        Example:
            >>> print(Architecture((3, 4, 6, 8, 3), "pairwise", 10))
            SAN(3, 4, 6, 8, 3) pairwise, 10 classes
        """
        return f"SAN{self.depth} {self.attention}, {self.classes} classes"


def recognise(state: Mapping[str, Tensor], shown: Callable[[str], str] = str) -> Architecture:
    """Reads kind, depth and number of classes off a state dict with our names, and compares it with that network.

    The footprints of pairwise attention leave no trace in a state dict: those of the published networks are assumed.

    Args:
        state: Tensors by our names, those that :func:`~sa_layers.convert.names.to_ours` gives.
        shown: What to call a tensor in a message, from its name of ours. Defaults to that.

    Raises:
        CheckpointError: A tensor is missing, unexpected or of another shape; the message names the first of them.
    """
    blocks: list[set[int]] = [set() for _ in range(STAGES)]
    for name in state:
        if (match := re.match(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", name)) and int(match[1]) < STAGES:
            blocks[int(match[1])].add(int(match[2]))
    if not all(blocks):
        empty = ", ".join(str(stage) for stage, numbers in enumerate(blocks) if not numbers)
        raise CheckpointError(f"a SAN has blocks in each of its {STAGES} stages, and here stages without: {empty}")
    head = state.get("head.fc.weight")
    if head is None or head.ndim != 2:
        raise CheckpointError(f"{shown('head.fc.weight')}, the matrix of the classifier, is missing or no matrix")
    depths = tuple(len(numbers) for numbers in blocks)
    named = {settings: depth for depth, settings in SelfAttentionNetwork.arch_settings.items()}
    attention = "pairwise" if any(".position." in name for name in state) else "patchwise"
    architecture = Architecture(named.get(depths, depths), attention, len(head))
    compare(state, expected_shapes(architecture), shown)
    return architecture


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the backbone and the head.

    Example:
        >>> expected_shapes(Architecture(10, "pairwise", 1000))["head.fc.weight"]
        (1000, 2048)
    """
    with torch.device("meta"):
        backbone = SelfAttentionNetwork(architecture.depth, architecture.attention)
        head = nn.ModuleDict({"fc": nn.Linear(backbone.out_channels[-1], architecture.classes)})
        whole = nn.ModuleDict({"backbone": backbone, "head": head})
    return {name: tuple(values.shape) for name, values in whole.state_dict().items()}


def compare(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], shown: Callable[[str], str] = str
) -> None:
    """Refuses a state dict with other names or shapes. The counters of batch norms may be missing: torch adds them."""
    missing = [name for name in expected if name not in state and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    misshapen = [name for name in state if name in expected and tuple(state[name].shape) != expected[name]]
    if missing:
        raise CheckpointError(f"{len(missing)} of its tensors are missing: {_first(map(shown, missing))}")
    if unexpected:
        raise CheckpointError(f"{len(unexpected)} of its tensors do not belong there: {_first(map(shown, unexpected))}")
    if misshapen:
        shapes = (f"{shown(name)} is {tuple(state[name].shape)}, not {expected[name]}" for name in misshapen)
        raise CheckpointError(f"{len(misshapen)} of its tensors have another shape: {_first(shapes)}")


def _first(names: Iterable[str]) -> str:
    shown = list(islice(names, SHOWN + 1))
    return ", ".join(shown[:SHOWN]) + ", ..." * (len(shown) > SHOWN)
