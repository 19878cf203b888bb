"""Whole networks in plain torch, for use without OpenMMLab."""

from .self_attention_network import SelfAttentionNetwork

__all__ = ["SelfAttentionNetwork"]
