"""The operators of vector self-attention, each validated once and computed by the fastest backend at hand."""

from . import (
    flops,  # noqa: F401 - registers with torch's counter
    torch_release,  # noqa: F401 - before whatever an older torch lacks
)
from .aggregation import aggregation
from .backend import BACKENDS, backend
from .footprint import PADDING_MODES, Footprint
from .fusion import fused, why_not_fused
from .pairwise_attention import Epilogue, Mapping, PairPosition, pairwise_attention
from .pairwise_relation import PAIRWISE_RELATIONS, pairwise_relation
from .patchwise_attention import PatchwiseMapping, patchwise_attention
from .patchwise_relation import PATCHWISE_RELATIONS, patchwise_relation
from .softmax_aggregation import softmax_aggregation

__all__ = [
    "BACKENDS",
    "PADDING_MODES",
    "PAIRWISE_RELATIONS",
    "PATCHWISE_RELATIONS",
    "Epilogue",
    "Footprint",
    "Mapping",
    "PairPosition",
    "PatchwiseMapping",
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
