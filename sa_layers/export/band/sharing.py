"""Tables that several attentions of a program share."""

from __future__ import annotations

from typing import Any

from torch import fx

from . import operators

SHARED = (operators.tables, operators.coordinates)


def share_tables(graph: fx.Graph) -> None:
    """Keep one of all nodes that compute equal tables: for maps of equal sizes, and equal other arguments.

    Equal sizes are equal expressions of the sizes of the image, which the nodes of two maps do not show.
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
