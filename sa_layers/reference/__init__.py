"""The operators in Numba, on NumPy arrays: slow, readable, the oracle of every test.

Every function takes float16, float32 or float64 arrays of any layout, computes in float64, and rounds once, at the end.
Set the environment variable ``NUMBA_DISABLE_JIT=1`` to step through the loops in a Python debugger.
"""

from sa_layers.extras import importing

with importing("reference"):
    from sa_layers.reference.aggregation import aggregation, aggregation_backward
    from sa_layers.reference.attention_gradients import AttentionGradients
    from sa_layers.reference.footprint import Footprint, make_footprint
    from sa_layers.reference.mapping import BatchNorm, FrozenNorm, MappingLayer
    from sa_layers.reference.pairwise_attention import pairwise_attention, pairwise_attention_backward
    from sa_layers.reference.pairwise_relation import pairwise_relation, pairwise_relation_backward
    from sa_layers.reference.patchwise_attention import patchwise_attention, patchwise_attention_backward
    from sa_layers.reference.patchwise_relation import patchwise_relation, patchwise_relation_backward
    from sa_layers.reference.position import PairPosition
    from sa_layers.reference.softmax_aggregation import softmax_aggregation, softmax_aggregation_backward

__all__ = [
    "AttentionGradients",
    "BatchNorm",
    "Footprint",
    "FrozenNorm",
    "MappingLayer",
    "PairPosition",
    "aggregation",
    "aggregation_backward",
    "make_footprint",
    "pairwise_attention",
    "pairwise_attention_backward",
    "pairwise_relation",
    "pairwise_relation_backward",
    "patchwise_attention",
    "patchwise_attention_backward",
    "patchwise_relation",
    "patchwise_relation_backward",
    "softmax_aggregation",
    "softmax_aggregation_backward",
]
