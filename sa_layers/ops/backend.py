"""Which implementation computes an operator: the choice, how to force it, and why the others were passed over.

- 'native': the extension's C++ kernels, the fast way, for the devices that it was built for.
- 'torch': plain torch operators; any device, exportable, differentiable any number of times, slower.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

from . import extension

BACKENDS = ("native", "torch")
_forced: ContextVar[str | None] = ContextVar("sa_layers_backend", default=None)


@contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Computes every operator inside the block with one backend; None chooses by itself again.

    The environment variable ``SA_LAYERS_BACKEND`` does the same for a whole process.

    Args:
        name: 'native', 'torch' or None.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> from sa_layers.ops import aggregation, backend
        >>> with backend("torch"):
        ...     output = aggregation(torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25), kernel_size=3)
    """
    token = _forced.set(_known(name, "backend"))
    try:
        yield
    finally:
        _forced.reset(token)


def choose(device: torch.device) -> str:
    """The backend for tensors on ``device``.

    Raises:
        RuntimeError: 'native' was forced and cannot serve this device.
    """
    forced = _forced.get() or _known(os.environ.get("SA_LAYERS_BACKEND") or None, "SA_LAYERS_BACKEND")
    if forced == "torch":
        return "torch"
    obstacle = why_not_native(device)
    if obstacle is None:
        return "native"
    if forced == "native":
        raise RuntimeError(f"backend 'native' cannot be used: {obstacle}")
    if device.type in ("cpu", "cuda"):
        _warn_once(obstacle)
    return "torch"


def why_not_native(device: torch.device) -> str | None:
    """One sentence on what keeps the native kernels from running on ``device``, or None."""
    if not extension.is_available():
        return extension.why_not()
    # torch.library has no public question for this
    if not torch._C._dispatch_has_kernel_for_dispatch_key("sa_layers::aggregation", device.type.upper()):
        return f"the native kernels were not built for {device.type}"
    return None


@cache
def _warn_once(obstacle: str) -> None:
    warnings.warn(f"sa_layers computes with plain torch, which is several times slower: {obstacle}", stacklevel=4)


def _known(name: str | None, source: str) -> str | None:
    if name is not None and name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name
