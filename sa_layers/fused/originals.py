"""The functions whose work the fused path does, and whether someone has replaced one of them.

Profilers, tracers and users patch functions of classes for a while: ``nn.BatchNorm2d.forward``, ``F.conv2d``,
``PairwiseSelfAttention.attend``. The fused path would ignore the patch, so it is not taken then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from ..ops.torch_internals import CONVOLUTION, MODULE_CALLS, NORM_CHECK

Class = TypeVar("Class", bound=type)

_originals: list[tuple[Any, str, Any]] = []


def _remember(owner: Any, *names: str) -> None:
    _originals.extend((owner, name, getattr(owner, name)) for name in names)


_remember(nn.Module, *MODULE_CALLS)
for _module in (nn.BatchNorm2d, nn.SyncBatchNorm, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Identity, nn.Sequential):
    _remember(_module, "forward", *MODULE_CALLS)
for _module in (nn.BatchNorm2d, nn.SyncBatchNorm):
    _remember(_module, NORM_CHECK)
_remember(nn.Conv2d, CONVOLUTION)
_remember(F, "batch_norm", "conv2d", "max_pool2d", "relu")
_remember(torch, "batch_norm", "max_pool2d", "relu", "relu_")


def replaceable(*names: str) -> Callable[[Class], Class]:
    """Class decorator: the fused path does the work of these methods of the class.

    Args:
        *names: Its methods, inherited ones too.

    Example:
        >>> @replaceable("double")
        ... class Doubling:
        ...     def double(self, number):
        ...         return 2 * number
        >>> why_not_original()
        >>> original, Doubling.double = Doubling.double, lambda self, number: number + number
        >>> why_not_original()
        'Doubling.double was replaced'
        >>> Doubling.double = original
    """

    def remember(owner: Class) -> Class:
        _remember(owner, *names)
        return owner

    return remember


@torch.compiler.assume_constant_result  # torch.compile cannot trace the loop, and guards the code of what it inlines
def why_not_original() -> str | None:
    """One sentence on a function of a class or module that is no longer the one whose work the fused path does."""
    for owner, name, original in _originals:
        if getattr(owner, name) is not original:
            return f"{owner.__name__}.{name} was replaced"
    return None


def overridden(module: nn.Module, names: tuple[str, ...], base: type) -> str | None:
    """The first of some methods of ``base`` that a subclass or the instance overrides, or None."""
    own, kind = vars(module), type(module)
    for name in names:
        if name in own or (kind is not base and getattr(kind, name) is not getattr(base, name)):
            return name
    return None
