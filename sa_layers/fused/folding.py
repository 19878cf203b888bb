"""Folding: a value computed from a module's parameters, kept while the module is unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from typing_extensions import Self

from .snapshot import Snapshot

Folded = TypeVar("Folded")


class Folding(Generic[Folded]):
    """Calls a module's method once, and again after the module or one below it has changed.

    The rest of the package keeps values only through this class. Without the snapshot, each call would simply call the
    method. Changes are an optimizer's step, a loaded state dict, a move or a conversion, an assignment of a
    parameter, module or attribute, and a hook. Copies and pickles of the module do not include the value.

    Args:
        fold: The method. Its result depends only on the module and those below it.

    Example:
        >>> from torch import Tensor, nn
        >>> class Doubling(nn.Linear):
        ...     def double(self) -> Tensor:
        ...         return 2 * self.weight
        >>> module = Doubling(1, 1)
        >>> doubled = Folding(module.double)
        >>> doubled() is doubled()
        True
        >>> _ = nn.init.ones_(module.weight)
        >>> doubled()
        tensor([[2.]])
    """

    def __init__(self, fold: Callable[[], Folded]) -> None:
        self.fold = fold
        self._kept: tuple[Snapshot, Folded] | None = None

    def __call__(self) -> Folded:
        """The method's result, without a gradient; kept if all parameters are ordinary tensors."""
        if torch.compiler.is_compiling():
            return self.fold()
        kept = self._kept
        if kept is not None and kept[0].holds():
            return kept[1]
        snapshot = Snapshot(self.module)
        # A tensor created in inference mode could not be saved for a later backward pass.
        with torch.inference_mode(False), torch.no_grad():
            folded = self.fold()
        self._kept = (snapshot, folded) if snapshot.is_reliable else None
        return folded

    @property
    def module(self) -> Any:
        """The module whose method is called."""
        method: Any = self.fold
        return method.__self__

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy without the value, for the copy of the module."""
        return type(self)(copy.deepcopy(self.fold, memo))

    def __reduce__(self) -> tuple:
        """Pickles the method alone."""
        return type(self), (self.fold,)
