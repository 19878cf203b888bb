"""The switch of the fused operators, and the reason why a call does not use them.

Fused operators never write a tensor of the size of all footprints, and have no derivatives. Layers use them in
evaluation. ``why_not_fused`` returns a sentence on why a call does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .backend import choose
from .switch import Switch
from .torch_internals import is_exporting, is_tracing, is_transformed

SWITCH = "SA_LAYERS_FUSED"


@contextmanager
def fused(enabled: bool = True) -> Iterator[None]:
    """Enable or disable the fused operators inside the block, in the threads and tasks that :func:`backend` names.

    The environment variable ``SA_LAYERS_FUSED=off`` does the same for a whole process.

    Args:
        enabled: Whether to use fused operators where they are eligible. Defaults to True.

    Example:
        >>> from sa_layers.layers import PairwiseSelfAttention
        >>> layer = PairwiseSelfAttention(8, 8, 3).eval()
        >>> with torch.no_grad(), fused(False):
        ...     output = layer(torch.ones(1, 8, 5, 5))
    """
    with _enabled.switched_to(bool(enabled)):
        yield


def why_not_fused(tensors: Iterable[Tensor], differentiable: bool = False) -> str | None:
    """One sentence on why a fused operator may not be called with these tensors, or None.

    Args:
        tensors: All tensors that the operator would read, features first.
        differentiable: Whether the operator is part of a step of training, which has gradients. Defaults to False.

    Example:
        >>> why_not_fused([torch.ones(1, requires_grad=True)])
        'a gradient is needed, and the fused operators have none'
    """
    tensors = list(tensors)
    if not _enabled.value:
        return f"the fused operators are switched off, by {SWITCH} or by sa_layers.ops.fused(False)"
    if not isinstance(tensors[0], Tensor):
        return "torch.fx records the call, whose features are symbols"
    if is_exporting():
        return "an exported program must run without the extension"
    if is_tracing():
        return "torch.jit.trace is running, and a trace must follow changes of the parameters"
    if not differentiable and torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "a gradient is needed, and the fused operators have none"
    if is_transformed():
        return "a transform of torch.func or forward-mode differentiation is running"
    device = tensors[0].device
    if [tensor for tensor in tensors if tensor.device != device]:  # faster than any()
        return "the features and the parameters are on different devices"
    if choose(device) != "native":
        return f"the native kernels are not used on {device.type}"
    return None


@torch.compiler.assume_constant_result  # torch.compile guards this setting and recompiles when it changes
def tf32_is_allowed() -> bool:
    """Whether any switch of torch allows TF32 in float32 matrix products on CUDA."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"  # allow_tf32 cannot be read once this was set


def _parse(text: str) -> bool:
    if text.lower() not in ("", "on", "off"):
        raise ValueError(f"{SWITCH} must be 'on' or 'off', got {text!r}")
    return text.lower() != "off"


_enabled = Switch("enabled", _parse(os.environ.get(SWITCH, "")))
