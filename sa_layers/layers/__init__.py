"""Self-attention layers that replace a convolution, and the residual block of the SAN networks."""

from .mapping import make_mapping
from .pairwise_self_attention import PairwiseSelfAttention
from .patchwise_self_attention import PatchwiseSelfAttention
from .position import PositionEncoding
from .self_attention import SelfAttention
from .self_attention_block import ATTENTIONS, SelfAttentionBlock

__all__ = [
    "ATTENTIONS",
    "PairwiseSelfAttention",
    "PatchwiseSelfAttention",
    "PositionEncoding",
    "SelfAttention",
    "SelfAttentionBlock",
    "make_mapping",
]
