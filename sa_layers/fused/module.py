"""The base of modules that have a fused path for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor, nn
from typing_extensions import Self

from .eligibility import why_not_this_call
from .folding import Folded, Folding


class FusedModule(nn.Module, Generic[Folded]):
    """Base of modules that are computed by fused operators in evaluation, if they are eligible.

    A subclass defines :meth:`why_not_eligible` and :meth:`fold`. Its ``forward`` asks :meth:`folded` and executes the
    result, or calls its modules if there is none.

    Code that keeps moving averages of parameters writes to ``parameter.data``, which does not increment the version
    counter, and then calls ``eval()``. :meth:`train`, which ``eval()`` calls, therefore discards the folded values.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._folding: Folding[Folded | str] = Folding(self._fold_if_eligible)

    def why_not_eligible(self) -> str | None:
        """One sentence on why the modules must be called, from their structure alone, or None."""
        raise NotImplementedError

    def fold(self) -> Folded:
        """Return what the fused path executes, with its kernels chosen.

        Called only if the module is eligible and the backend is native.
        """
        raise NotImplementedError

    def folded(self, *features: Tensor) -> Folded | None:
        """What :meth:`fold` returned, or None if a call with these features must call the modules."""
        return None if why_not_this_call(features) is not None else self.folded_in_eligible_call()

    def folded_in_eligible_call(self) -> Folded | None:
        """As :meth:`folded`, if :func:`why_not_this_call` has already found no obstacle for the features."""
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            return None
        if self._folding.module is not self:  # shallow copies, such as DataParallel's replicas, share the attribute
            self._folding = Folding(self._fold_if_eligible)
        folded = self._folding()
        return None if isinstance(folded, str) else folded

    def why_not_fused(self, *features: Tensor) -> str | None:
        """One sentence on why the modules would be called one by one, or None if fused operators are used instead.

        Of a block or a stage, also a sentence if only the attention in it is unfused.

        Args:
            *features: The tensors that the layer would be called with; for an attention layer query, key and value.

        Example:
            >>> from sa_layers.layers import PairwiseSelfAttention
            >>> features = torch.zeros(1, 8, 5, 5)
            >>> PairwiseSelfAttention(8, 8, 3).why_not_fused(features, features, features)
            'mapping.0 is in training mode'
        """
        tensors = [*features, *self.parameters(), *self.buffers()]
        return self.why_not_eligible() or why_not_this_call(tensors)

    def train(self, mode: bool = True) -> Self:
        """As :meth:`torch.nn.Module.train`; also drops what was folded."""
        self._folding = Folding(self._fold_if_eligible)
        return super().train(mode)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or converts the module; what was folded would keep the memory of the old tensors."""
        self._folding = Folding(self._fold_if_eligible)
        return super()._apply(function, recurse)

    def _fold_if_eligible(self) -> Folded | str:
        return self.why_not_eligible() or self.fold()
