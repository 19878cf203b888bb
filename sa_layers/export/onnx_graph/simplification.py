"""Simplification of a graph that torch.onnx has built."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer


def simplify(model: ir.Model) -> None:
    """Fold constants, and compute only once what several attentions have in common.

    These are the passes of torch.onnx without its rewriting rules, which take most of the time of an export and find
    nothing that runtimes do not fuse themselves.
    """
    optimizer.inline(model)
    optimizer.fold_constants(model)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)
