"""The operators of vector self-attention: each checks its arguments once and uses the fastest available backend."""

import warnings
from typing import TYPE_CHECKING, Any

from . import (
    compiled,  # noqa: F401 - registers an operator
    flops,  # noqa: F401 - registers with torch's counter
    torch_release,  # noqa: F401 - before an import that an older torch does not have
)
from .affine_relu import AffineReLU
from .aggregation import aggregation
from .backend import BACKENDS, backend
from .footprint import ALL_PADDING_MODES, PADDING_MODES, Footprint
from .fusion import fused, why_not_fused
from .groups import GROUPS
from .mapping_layer import MappingLayer
from .pairwise_attention import pairwise_attention
from .pairwise_operands import PairPosition
from .pairwise_relation import PAIRWISE_RELATIONS, pairwise_relation
from .patchwise_attention import patchwise_attention
from .patchwise_relation import PATCHWISE_RELATIONS, patchwise_relation
from .softmax_aggregation import softmax_aggregation

__all__ = [
    "ALL_PADDING_MODES",
    "BACKENDS",
    "GROUPS",
    "PADDING_MODES",
    "PAIRWISE_RELATIONS",
    "PATCHWISE_RELATIONS",
    "AffineReLU",
    "Footprint",
    "MappingLayer",
    "PairPosition",
    "aggregation",
    "backend",
    "fused",
    "pairwise_attention",
    "pairwise_relation",
    "patchwise_attention",
    "patchwise_relation",
    "softmax_aggregation",
    "why_not_fused",
]

_RENAMED = {"Epilogue": "AffineReLU"}
_REMOVED = dict.fromkeys(("Mapping", "PairwiseMapping", "PatchwiseMapping"), "a list of sa_layers.ops.MappingLayer")

if not TYPE_CHECKING:  # type checkers would otherwise accept every name

    def __getattr__(name: str) -> Any:
        """Return public classes by their old names, for one release."""
        if name in _REMOVED:
            raise AttributeError(f"sa_layers.ops.{name} was replaced by {_REMOVED[name]}")
        if name not in _RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        message = f"sa_layers.ops.{name} was renamed to sa_layers.ops.{_RENAMED[name]}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
