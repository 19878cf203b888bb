"""The one place that says whether the fused training path exists, and when it must be taken."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sa_layers.ops import extension

FUSED_TRAINING = True
"""Whether modules have a fused path for training. Until then the tests hold for the unfused operators."""


def assert_fused(module: nn.Module, *features: Tensor) -> None:
    """A training step of ``module`` takes the fused path as a whole.

    Args:
        module: A layer, block, stage or network in training mode.
        *features: What it is called with; of a layer, the map from which it makes query, key and value.
    """
    if not FUSED_TRAINING or not extension.is_available():
        return
    answer = why_not_fused(module, *features)
    assert answer is None, f"a training step of this {type(module).__name__} is not fused: {answer}"


def assert_unfused(module: nn.Module, *features: Tensor) -> None:
    """``why_not_fused`` has an answer: a part of the module must be called."""
    if FUSED_TRAINING:
        answer = why_not_fused(module, *features)
        assert isinstance(answer, str)
        assert answer


def why_not_fused(module: nn.Module, *features: Tensor) -> str | None:
    """The answer of a module to the input of its ``forward``."""
    asked: Any = module
    asked = getattr(asked, "network", asked)  # a classifier consists of its network and plain torch
    if hasattr(asked, "transform") and len(features) == 1:  # a layer's own path begins behind its transforms
        features = tuple(tensor.detach() for tensor in asked.transform(features[0]))
    answer: str | None = asked.why_not_fused(*features)
    return answer
