"""The native implementations of an attention, as the libraries report them, and why none of them is eligible."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch

from . import extension
from .backend import devices_of
from .torch_internals import without_modes


def implementations(name: str, device: str, *problem: object) -> list[str]:
    """The implementations that a library has for a problem; the first without a reason computes it.

    Args:
        name: 'pairwise_attention' or 'patchwise_attention'.
        device: 'cpu' or 'cuda'.
        *problem: The arguments of ``torch.ops.sa_layers.<name>_implementations``.

    Returns:
        ``'<implementation>'``, or ``'<implementation>: <reason>'`` if it does not support the problem, in the order in
        which they are tried. Empty if the library for the device is not loaded.

    Example:
        >>> implementations("pairwise_attention", "meta")
        []
    """
    listed = {"cpu": f"{name}_implementations", "cuda": f"{name}_implementations_cuda"}.get(device)
    if listed is None or not extension.is_available() or not hasattr(torch.ops.sa_layers, listed):
        return []
    with without_modes():  # a mode that traces or fakes tensors would intercept the call
        return getattr(torch.ops.sa_layers, listed)(*problem).splitlines()


def why_no_implementation(name: str, device: torch.device, dtype: torch.dtype, *problem: Any) -> str | None:
    """One sentence on why no implementation on ``device`` supports a problem, or None.

    Args:
        name: 'pairwise_attention' or 'patchwise_attention'.
        device: The device of the maps.
        dtype: The dtype of the maps.
        *problem: The further arguments of ``torch.ops.sa_layers.<name>_implementations``.

    Example:
        >>> why_no_implementation("pairwise_attention", torch.device("meta"), torch.float32)
        'the fused operator of pairwise attention was not built for meta'
    """
    return _constant_reason(name, device.type, str(dtype).removeprefix("torch."), *map(_hashable, problem))


def _hashable(argument: Any) -> Any:
    """The argument with symbolic sizes replaced by their values, and lists by tuples."""
    if isinstance(argument, str):
        return argument
    return tuple(map(operator.index, argument)) if isinstance(argument, Sequence) else operator.index(argument)


@torch.compiler.assume_constant_result  # it depends on its arguments only, and torch.compile cannot trace the list
def _constant_reason(*problem: Any) -> str | None:
    return _why_none(*problem)


@functools.lru_cache(maxsize=1024)
def _why_none(name: str, device: str, dtype: str, *problem: Any) -> str | None:
    attention = name.replace("_", " ")
    if device not in devices_of(name):
        return f"the fused operator of {attention} was not built for {device}"
    reasons = [line.partition(": ")[2] for line in implementations(name, device, dtype, *problem)]
    if not all(reasons) or not reasons:
        return None
    return f"no kernel of {attention} is eligible on {device}, since {reasons[-1]}"  # the last is the most general
