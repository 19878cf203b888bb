"""The backends: which one computes an operator, how to force one, and why one cannot be used.

- 'native': the C++ kernels of the extension; the fastest, on the devices for which it was built.
- 'torch': plain torch operators; slower, on any device, exportable, differentiable any number of times.
- 'reference': the Numba loops of :mod:`sa_layers.reference`; slow and readable, for CPU tensors, only on request.
  Its functions have the operators' names; ``reference_backend`` imports them at the first call.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from . import extension
from .switch import Switch
from .torch_internals import has_kernel, is_exporting

BACKENDS = ("native", "torch", "reference")


@contextmanager
def backend(name: str | None) -> Iterator[None]:
    """Force one backend for every operator inside the block; None restores the automatic choice.

    The block applies to the calling thread or asyncio task, and to tasks that it starts. A new thread starts with the
    environment variable ``SA_LAYERS_BACKEND``, which does the same for a whole process; to hand the block on, run the
    thread's function by :func:`contextvars.copy_context`. Gradients of an operator come from the backend that computed
    it, in whichever thread.

    Args:
        name: 'native', 'torch', 'reference' or None.

    Raises:
        ValueError: The name is unknown.

    Example:
        >>> from sa_layers.ops import aggregation, backend
        >>> with backend("torch"):
        ...     output = aggregation(torch.ones(1, 8, 5, 5), torch.ones(1, 1, 9, 25), kernel_size=3)
    """
    with _forced.switched_to(_known(name, "backend")):
        yield


def choose(device: torch.device) -> str:
    """Choose the backend for tensors on ``device``, with a warning if plain torch is the fallback.

    Raises:
        RuntimeError: The backend that was forced cannot be used on this device.
    """
    chosen = decide(device)
    if chosen == "torch" and device.type in ("cpu", "cuda") and _forced.value is None:
        _warn_once(device)
    return chosen


def decide(device: torch.device) -> str:
    """Choose the backend as :func:`choose` does, without the warning.

    Example:
        >>> with backend("torch"):
        ...     decide(torch.device("cpu"))
        'torch'
    """
    forced = _forced.value
    if forced == "torch" or (forced is None and is_exporting()):
        return "torch"  # an exported program must run without the extension
    if forced == "reference":
        if obstacle := why_not_reference(device):
            raise RuntimeError(f"backend 'reference' cannot be used: {obstacle}")
        return "reference"
    if device.type in _native_devices:
        return "native"
    if forced == "native":
        raise RuntimeError(f"backend 'native' cannot be used: {why_not_native(device)}")
    return "torch"


def present_backend() -> Callable[[], AbstractContextManager[None]]:
    """Return a function that makes contexts in which the backend is forced that is forced now, or none.

    For a part of the forward pass that is computed again in the backward pass. That may run outside the block which
    forced the backend, does run in another thread for CUDA tensors, and can be repeated.
    """
    return functools.partial(_forced.switched_to, _forced.value)


def why_not(name: str, device: torch.device) -> str | None:
    """One sentence on why a backend cannot be used on ``device``, or None.

    Args:
        name: 'native', 'torch' or 'reference'.
        device: The device of the tensors.
    """
    return {"native": why_not_native, "reference": why_not_reference}.get(name, lambda _: None)(device)


def why_not_native(device: torch.device) -> str | None:
    """One sentence on why the native kernels cannot be used on ``device``, or None."""
    if device.type in _native_devices:
        return None
    obstacle = extension.why_not_cuda() if device.type == "cuda" else extension.why_not()
    return obstacle or f"the native kernels were not built for {device.type}"


def why_not_reference(device: torch.device) -> str | None:
    """One sentence on why the Numba reference cannot be used on ``device``, or None."""
    if device.type != "cpu":
        return f"it computes on NumPy arrays, and the tensors are on {device.type}; move them with .cpu()"
    if torch.compiler.is_compiling():
        return "it computes on NumPy arrays, which torch cannot compile or export"
    return _why_not_numba()


@functools.cache
def _why_not_numba() -> str | None:
    try:
        import numba  # noqa: F401
    except ImportError as error:
        return f"numba could not be imported ({error}); install it with pip install 'sa-layers[reference]'"
    return None


def _warn_once(device: torch.device) -> None:
    if not torch.compiler.is_compiling() and device.type not in _warned:
        _warned.add(device.type)
        obstacle = why_not_native(device)
        warnings.warn(f"sa_layers computes with plain torch, which is several times slower: {obstacle}", stacklevel=4)


def _known(name: str | None, source: str) -> str | None:
    if name is not None and name not in BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


def devices_of(operator: str) -> frozenset[str]:
    """The device types for which the loaded extension has a kernel of an operator."""
    if not extension.is_available():
        return frozenset()
    return frozenset(key.lower() for key in ("CPU", "CUDA") if has_kernel(f"sa_layers::{operator}", key))


_forced = Switch("forced", _known(os.environ.get("SA_LAYERS_BACKEND") or None, "SA_LAYERS_BACKEND"))
# Plain globals, so that torch.compile can guard them.
_native_devices = devices_of("aggregation")
_warned: set[str] = set()
