"""Tables that several attentions of a program share."""

from __future__ import annotations

from typing import Any

from torch import fx

from . import operators

SHARED = (operators.tables, operators.coordinates)


def share_tables(graph: fx.Graph) -> None:
    """Keep only the first of the nodes that compute equal tables, for maps of equal sizes with equal other arguments.

    Sizes are equal if they are the same expression of the sizes of the image, even if different nodes compute them.
    """
    first: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.target not in SHARED:
            continue
        kept = first.setdefault((node.target, *map(_value, node.args[1:])), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            graph.erase_node(node)


def _value(argument: Any) -> str:
    """A constant, or the symbolic expression of a size."""
    return str(argument.meta["val"] if isinstance(argument, fx.Node) else argument)
