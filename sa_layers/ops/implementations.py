"""The native implementations of an attention in the order in which they are tried, as the libraries report them."""

from __future__ import annotations

import torch

from . import extension


def implementations(operator: str, device: str, *problem: object) -> list[str]:
    """The implementations that a library has for a problem; the first without a reason computes it.

    Args:
        operator: 'pairwise_attention' or 'patchwise_attention'.
        device: 'cpu' or 'cuda'.
        *problem: The arguments of ``torch.ops.sa_layers.<operator>_implementations``.

    Returns:
        ``'<name>'``, or ``'<name>: <reason>'`` if it does not support the problem. Empty if the library for the device
        is not loaded or does not report its implementations.

    Example:
        >>> implementations("pairwise_attention", "meta")
        []
    """
    name = {"cpu": f"{operator}_implementations", "cuda": f"{operator}_implementations_cuda"}.get(device)
    if name is None or not extension.is_available() or not hasattr(torch.ops.sa_layers, name):
        return []
    return getattr(torch.ops.sa_layers, name)(*problem).splitlines()
