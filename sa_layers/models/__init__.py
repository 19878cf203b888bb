"""Whole networks in plain torch, for use without OpenMMLab."""

from .named_features import NamedFeatures
from .self_attention_classifier import SelfAttentionClassifier
from .self_attention_network import SelfAttentionNetwork

__all__ = ["NamedFeatures", "SelfAttentionClassifier", "SelfAttentionNetwork"]
