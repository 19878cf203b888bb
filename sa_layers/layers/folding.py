"""Folding: what a module's parameters come down to in evaluation, kept for as long as the module stays what it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from ..ops import why_not_fused
from .evaluation import is_every_module_watched
from .snapshot import Snapshot

Folded = TypeVar("Folded")


class Folding(Generic[Folded]):
    """Calls a module's method once, and again when the module or one below it has changed.

    Changes are an optimizer's step, a loaded state dict, a move or conversion, an assignment of a parameter, module or
    attribute, a hook. Copies and pickles of the module leave behind what is kept.

    Args:
        fold: The method; what it returns depends on nothing but the module and those below it.

    Example:
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
        """What the method returns, without a gradient; kept where all parameters are ordinary tensors."""
        if torch.compiler.is_compiling():
            return self.fold()
        kept = self._kept
        if kept is not None and kept[0].holds():
            return kept[1]
        module: Any = self.fold
        snapshot = Snapshot(module.__self__)
        # A tensor made in inference mode could not be saved for a later backward pass.
        with torch.inference_mode(False), torch.no_grad():
            folded = self.fold()
        self._kept = (snapshot, folded) if snapshot.tells else None
        return folded

    def __deepcopy__(self, memo: dict[int, Any]) -> Folding[Folded]:
        """A copy that keeps nothing yet."""
        return type(self)(copy.deepcopy(self.fold, memo))  # a method goes with the copy of its module

    def __reduce__(self) -> tuple:
        """Pickles the method alone."""
        return type(self), (self.fold,)


class FoldingModule(nn.Module, Generic[Folded]):
    """Base of modules that need not be called one by one in evaluation.

    Moving averages change ``parameter.data`` in place, which nothing tells, and call ``eval`` before they evaluate: so
    :meth:`train` forgets what is folded.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._folding: Folding[Folded | str] = Folding(self.fold)

    def fold(self) -> Folded | str:
        """What the modules come down to, or a sentence on why they must be called. All parameters are on one device."""
        raise NotImplementedError

    def folded(self, *features: Tensor) -> Folded | None:
        """What :meth:`fold` made, or None where it must not stand for the modules in a call with these."""
        if is_every_module_watched() or why_not_fused(features) is not None or self._needs_gradient():
            return None
        folded = self._own_folding()()
        return None if isinstance(folded, str) else folded

    def why_not_fused(self, *features: Tensor) -> str | None:
        """One sentence on why the modules would be called one by one, or None where a fused operator stands for them.

        Args:
            *features: What the layer would be called with; of an attention layer query, key and value.

        Example:
            >>> from sa_layers.layers import PairwiseSelfAttention
            >>> features = torch.zeros(1, 8, 5, 5)
            >>> PairwiseSelfAttention(8, 8, 3).why_not_fused(features, features, features)
            'mapping.0 is in training mode'
        """
        if is_every_module_watched():
            return "a hook watches every module"
        folded = self._own_folding()()
        return folded if isinstance(folded, str) else why_not_fused([*features, *self.parameters(), *self.buffers()])

    def train(self, mode: bool = True) -> Self:
        """As of every module; what is folded is folded again."""
        self._folding = Folding(self.fold)
        return super().train(mode)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As of every module, at a move or a conversion; what was folded would keep the memory of the old tensors."""
        self._folding = Folding(self.fold)
        return super()._apply(function, recurse)

    def _own_folding(self) -> Folding[Folded | str]:
        """That of this module: a replica of DataParallel, as any shallow copy, has the original's attributes."""
        method: Any = self._folding.fold
        if method.__self__ is not self:
            self._folding = Folding(self.fold)
        return self._folding

    def _needs_gradient(self) -> bool:
        return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters())
