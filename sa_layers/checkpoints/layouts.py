"""Layouts: the names under which the tensors of a SAN and its head are saved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from .names import to_ours

OURS = re.compile(r"((?:.*?\.)?)(?:stem\.\d+|stages\.\d+\.(?:transition|norm|blocks\.\d+\.\w+))\.")
OFFICIAL = re.compile(r"((?:.*?\.)?)(?:conv_in|bn_in|layer\d+\.\d+\.sam\.\w+)\.")
HEADS = {"backbone.": "head.fc.", "network.": "head."}
"""Prefix of the head for a prefix of the network, in mmpretrain's classifiers and in ours."""


class Layout(NamedTuple):
    """Where a set of names holds a network.

    Attributes:
        network: Prefix of the network, such as 'backbone.'.
        head: Prefix of the linear layer of a classifier, such as 'head.fc.', or None if there is none.
        official: Whether the names after the prefix are those of the official code. Defaults to False.
    """

    network: str
    head: str | None
    official: bool = False


def find_layouts(names: Iterable[str]) -> list[Layout]:
    """Return where the networks are in a set of tensor names: nothing for names of other networks.

    Example:
        >>> find_layouts(["module.conv_in.weight", "module.fc.weight"])
        [Layout(network='module.', head='module.fc.', official=True)]
        >>> find_layouts(["backbone.stem.0.weight", "neck.conv.weight"])
        [Layout(network='backbone.', head=None, official=False)]
    """
    names = set(names)
    if prefixes := _prefixes(OURS, names):
        return [Layout(prefix, _head(prefix, names)) for prefix in prefixes]
    heads = {prefix: f"{prefix}fc." for prefix in _prefixes(OFFICIAL, names)}
    return [Layout(prefix, head if f"{head}weight" in names else None, True) for prefix, head in heads.items()]


def rename(state: Mapping[str, Tensor], network: str = "backbone.", head: str = "head.fc.") -> dict[str, Tensor]:
    """Rename the tensors of a network and its head.

    Args:
        state: State dict in any layout.
        network: Prefix of the network in the result. Defaults to 'backbone.', as in OpenMMLab's models.
        head: Prefix of the linear layer of a classifier in the result. Defaults to 'head.fc.', as in mmpretrain's.

    Returns:
        The tensors in the same order. They keep their names if they already have this layout, or if ``state`` contains
        no network or several ones. Tensors of other modules, such as a neck, always keep their names.

    Example:
        >>> import torch
        >>> list(rename({"module.conv_in.weight": torch.ones(64, 3, 1, 1), "module.fc.bias": torch.ones(10)}))
        ['backbone.stem.0.weight', 'head.fc.bias']
        >>> list(rename({"network.stem.0.weight": torch.ones(64, 3, 1, 1), "head.bias": torch.ones(10)}, ""))
        ['stem.0.weight', 'head.fc.bias']
    """
    layouts = find_layouts(state)
    if len(layouts) != 1:
        return dict(state)
    layout = layouts[0]
    return {_new_name(name, layout, network, head): values for name, values in state.items()}


def _new_name(name: str, layout: Layout, network: str, head: str) -> str:
    if layout.official:
        if not name.startswith(layout.network):
            return name
        try:
            name = to_ours(name.removeprefix(layout.network))
        except ValueError:
            return name
        layout = Layout("backbone.", "head.fc.")
    if layout.head is not None and name.startswith(layout.head):
        return head + name.removeprefix(layout.head)
    if match := OURS.match(name):
        return network + name.removeprefix(layout.network) if match[1] == layout.network else name
    return name


def _prefixes(pattern: re.Pattern[str], names: Iterable[str]) -> list[str]:
    return sorted({match[1] for name in names if (match := pattern.match(name))})


def _head(prefix: str, names: set[str]) -> str | None:
    for network, head in HEADS.items():
        whole = prefix.removesuffix(network)
        if whole != prefix and (not whole or whole.endswith(".")):
            return whole + head if any(name.startswith(whole + head) for name in names) else None
    return None
