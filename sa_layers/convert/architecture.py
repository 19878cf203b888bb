"""Detection of a network from the names and shapes in its state dict."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..checkpoints import CheckpointError
from ..checkpoints.matching import first
from ..models import SelfAttentionNetwork
from ..models.self_attention_network import STAGES


class Architecture(NamedTuple):
    """A network of the official code, of any depth, with the published widths and footprints.

    ``classes`` is 0 for a network without a head.
    """

    depth: int | tuple[int, ...]
    attention: str
    classes: int

    @property
    def backbone(self) -> dict[str, Any]:
        """Config of the backbone.

        Example:
            >>> Architecture(19, "patchwise", 1000).backbone
            {'type': 'sa_layers.SAN', 'depth': 19, 'attention': 'patchwise'}
        """
        return {"type": "sa_layers.SAN", "depth": self.depth, "attention": self.attention}

    def __str__(self) -> str:
        """Return the name and the number of classes.

        Example:
            >>> print(Architecture((3, 4, 6, 8, 3), "pairwise", 10))
            SAN(3, 4, 6, 8, 3) pairwise, 10 classes
        """
        return f"SAN{self.depth} {self.attention}, {f'{self.classes} classes' if self.classes else 'without a head'}"


def detect(state: Mapping[str, Tensor], display_name: Callable[[str], str] = str) -> Architecture:
    """Detect attention, depth and number of classes, and check that the state dict is complete.

    The parameters of pairwise attention do not depend on the footprint, so the published footprints are assumed.

    Args:
        state: State dict with OpenMMLab's names, as returned by :func:`~sa_layers.checkpoints.rename`. Its head may
            be absent.
        display_name: Function from the name of a tensor to the name that error messages show. Defaults to the identity.

    Raises:
        CheckpointError: If tensors are missing, unexpected or of the wrong shape. The message lists the first of them.
    """
    blocks: list[set[int]] = [set() for _ in range(STAGES)]
    for name in state:
        if (match := re.match(r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.", name)) and int(match[1]) < STAGES:
            blocks[int(match[1])].add(int(match[2]))
    if not all(blocks):
        empty = ", ".join(str(stage) for stage, numbers in enumerate(blocks) if not numbers)
        raise CheckpointError(f"each of the {STAGES} stages must have blocks, but these stages have none: {empty}")
    head = state.get("head.fc.weight")
    has_head = any(name.startswith("head.") for name in state)
    if has_head and (head is None or head.ndim != 2):
        raise CheckpointError(
            f"{display_name('head.fc.weight')}, the weight of the head, is missing or is not a matrix"
        )
    depths = tuple(len(numbers) for numbers in blocks)
    named = {settings: depth for depth, settings in SelfAttentionNetwork.arch_settings.items()}
    attention = "pairwise" if any(".position." in name for name in state) else "patchwise"
    architecture = Architecture(named.get(depths, depths), attention, 0 if head is None else len(head))
    check_shapes(state, expected_shapes(architecture), display_name)
    return architecture


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of the backbone and the head.

    Example:
        >>> expected_shapes(Architecture(10, "pairwise", 1000))["head.fc.weight"]
        (1000, 2048)
    """
    with torch.device("meta"):
        backbone = SelfAttentionNetwork(architecture.depth, architecture.attention)
        whole = nn.ModuleDict({"backbone": backbone})
        if architecture.classes:
            whole["head"] = nn.ModuleDict({"fc": nn.Linear(backbone.out_channels[-1], architecture.classes)})
    return {name: tuple(values.shape) for name, values in whole.state_dict().items()}


def check_shapes(
    state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], display_name: Callable[[str], str] = str
) -> None:
    """Check the names and shapes of a state dict. The batch norms' num_batches_tracked may be missing.

    Raises:
        CheckpointError: If tensors are missing, unexpected or of the wrong shape.
    """
    missing = [name for name in expected if name not in state and not name.endswith(".num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    misshapen = [name for name in state if name in expected and tuple(state[name].shape) != expected[name]]
    if missing:
        raise CheckpointError(f"{len(missing)} tensor(s) are missing: {first(map(display_name, missing))}")
    if unexpected:
        raise CheckpointError(f"{len(unexpected)} tensor(s) are unexpected: {first(map(display_name, unexpected))}")
    if misshapen:
        shapes = (f"{display_name(name)} is {tuple(state[name].shape)}, not {expected[name]}" for name in misshapen)
        raise CheckpointError(f"{len(misshapen)} tensor(s) have the wrong shape: {first(shapes)}")
