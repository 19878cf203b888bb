"""Whether attention may be computed by the fused inference operators: the switch, and why a call refuses them.

A fused operator never writes a tensor with the taps of every footprint, and has no derivatives. The layers choose it by
themselves for evaluation; ``why_not_fused`` says in a sentence what stands in the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .backend import choose, is_exporting

SWITCH = "SA_LAYERS_FUSED"


@contextmanager
def fused(enabled: bool = True) -> Iterator[None]:
    """Lets layers inside the block, in all threads, use the fused operators, or keeps them from it.

    The environment variable ``SA_LAYERS_FUSED=off`` does the same for a whole process.

    Args:
        enabled: False to compute every layer by the unfused operators. Defaults to True.

    Example:
        >>> from sa_layers.layers import PairwiseSelfAttention
        >>> layer = PairwiseSelfAttention(8, 8, 3).eval()
        >>> with torch.no_grad(), fused(False):
        ...     output = layer(torch.ones(1, 8, 5, 5))
    """
    global _enabled
    before, _enabled = _enabled, bool(enabled)
    try:
        yield
    finally:
        _enabled = before


def why_not_fused(tensors: Iterable[Tensor]) -> str | None:
    """One sentence on what keeps these tensors from a fused operator, or None.

    Args:
        tensors: All that the operator would read: features and parameters, the features first.

    Example:
        >>> why_not_fused([torch.ones(1, requires_grad=True)])
        'a gradient is needed, and the fused operators have none'
    """
    tensors = list(tensors)
    if not _enabled:
        return f"the fused operators are switched off, by {SWITCH} or by sa_layers.ops.fused(False)"
    if is_exporting():
        return "an exported program must run where the extension is not"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "a gradient is needed, and the fused operators have none"
    # torch has no public question for either: torch.func's transforms, forward-mode differentiation
    if torch._C._functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0:
        return "a transform of torch.func or a forward-mode derivative is under way"
    device = tensors[0].device
    if [tensor for tensor in tensors if tensor.device != device]:  # faster than any()
        return "the features and the parameters are on different devices"
    if choose(device) != "native":
        return f"the native kernels are not in use on {device.type}"
    return None


def _parse(text: str) -> bool:
    if text.lower() not in ("", "on", "off"):
        raise ValueError(f"{SWITCH} must be 'on' or 'off', got {text!r}")
    return text.lower() != "off"


# A plain global, like the backend's: torch.compile guards it.
_enabled = _parse(os.environ.get(SWITCH, ""))
