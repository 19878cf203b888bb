"""The base of modules that have a fused path for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from .eligibility import why_not_this_call
from .originals import why_not_original
from .parameters import Folded, Parameters
from .structure import Plans, Structure

Plan = TypeVar("Plan")
_plans: Plans[Any] = Plans()


class FusedModule(nn.Module, Generic[Plan]):
    """Base of modules that are computed by fused operators in evaluation, if they are eligible.

    A subclass defines :meth:`why_not_eligible` and :meth:`plan`. Its ``forward`` asks :meth:`planned` and executes the
    plan, or calls its modules if there is none. A plan is kept while the module has the same :class:`Structure`: it
    refers to parameters and buffers, and contains no value of one.
    """

    def why_not_eligible(self) -> str | None:
        """One sentence on why the modules must be called, from their structure alone, or None."""
        raise NotImplementedError

    def plan(self, parameters: Parameters) -> Plan:
        """Return what the fused path executes, with its kernels chosen.

        Called only if the module is eligible and the backend is native.

        Args:
            parameters: Collects the norms and positions, to which the plan refers by number.
        """
        raise NotImplementedError

    def planned(self, *features: Tensor) -> tuple[Plan, Folded] | None:
        """The plan, with the norms and positions of this call, or None if the call must call the modules."""
        if why_not_this_call(features) is not None or why_not_original() is not None:
            return None
        if torch.is_grad_enabled() and _requires_grad(self.parameters()):
            return None
        plan, tensors = self.current_plan()
        if isinstance(plan, str) or (torch.is_grad_enabled() and _requires_grad(tensors)):
            return None
        return plan[0], plan[1].fold()

    def current_plan(self) -> tuple[str | tuple[Plan, Parameters], Iterable[Tensor]]:
        """The plan, or the sentence of :meth:`why_not_eligible`; and the tensors of the module."""
        if torch.compiler.is_compiling():
            plan = self.fold()
            return plan, () if isinstance(plan, str) else _tensors_in(plan)
        kept = _plans.get(self)
        if kept is None:
            structure = Structure(self)  # before the plan, should another thread change the module now
            kept = _plans.keep(self, structure, self.fold())
        structure, plan = kept
        return plan, structure.tensors

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
        obstacle = why_not_original() or self.why_not_eligible()
        return obstacle or why_not_this_call([*features, *Structure(self).tensors])

    def fold(self) -> str | tuple[Plan, Parameters]:
        """Make a plan and list the norms and positions that it reads, or return why the module is not eligible."""
        parameters = Parameters()
        return self.why_not_eligible() or (self.plan(parameters), parameters)


def _requires_grad(tensors: Iterable[Tensor]) -> bool:
    return any(tensor.requires_grad for tensor in tensors)


def _tensors_in(item: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples and lists."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Parameters):
        yield from item.tensors()
    elif isinstance(item, tuple | list):
        for part in item:
            yield from _tensors_in(part)
