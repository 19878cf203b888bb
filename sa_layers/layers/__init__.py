"""Self-attention layers that replace a convolution, the block of the SANs, and aggregation layers of other papers."""

from .carafe import CARAFE, CARAFEPack
from .convex_upsampling import ConvexUpsampling
from .involution import Involution2d
from .mapping import make_mapping
from .neighborhood_aggregation import NeighborhoodAggregation, na2d_av, na2d_qk
from .outlook_attention import OutlookAttention
from .pairwise_self_attention import PairwiseSelfAttention
from .patchwise_self_attention import PatchwiseSelfAttention
from .position import PositionEncoding
from .self_attention import SelfAttention
from .self_attention_block import ATTENTIONS, SelfAttentionBlock, register_attention

__all__ = [
    "ATTENTIONS",
    "CARAFE",
    "CARAFEPack",
    "ConvexUpsampling",
    "Involution2d",
    "NeighborhoodAggregation",
    "OutlookAttention",
    "PairwiseSelfAttention",
    "PatchwiseSelfAttention",
    "PositionEncoding",
    "SelfAttention",
    "SelfAttentionBlock",
    "make_mapping",
    "na2d_av",
    "na2d_qk",
    "register_attention",
]
