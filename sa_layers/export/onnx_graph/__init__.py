"""Band graphs: attentions in plain ONNX, from the operators of :mod:`sa_layers.export.band`. Needs onnxscript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..band import operators
from .nodes import OPSET
from .pairwise import pairwise_attention
from .patchwise import patchwise_attention
from .simplification import simplify
from .tables import coordinates, tables

__all__ = ["OPSET", "TRANSLATIONS", "simplify"]

TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operators.tables: tables,
    operators.coordinates: coordinates,
    operators.pairwise_attention: pairwise_attention,
    operators.patchwise_attention: patchwise_attention,
}
"""For ``torch.onnx.export(..., custom_translation_table=TRANSLATIONS)``."""
