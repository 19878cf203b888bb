"""The base of modules that have fused paths for evaluation and for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from .eligibility import why_not_this_call
from .evaluation.parameters import Folded, Parameters
from .originals import why_not_original
from .structure import Plans, Structure

Plan = TypeVar("Plan")
TRAINING_DEVICES = {"cpu"}
_plans: Plans[Any] = Plans()
_training_plans: Plans[Any] = Plans()


class FusedModule(nn.Module, Generic[Plan]):
    """Base of modules that are computed by fused operators, if they are eligible.

    A subclass defines :meth:`why_not_eligible`, :meth:`plan` and :meth:`plan_training`. Its ``forward`` executes the
    plan of evaluation if :meth:`planned` returns one, that of training if :meth:`trained` does, and otherwise calls its
    modules. A plan is kept while the module has the same :class:`Structure`: it refers to modules, parameters and
    buffers, and contains no value of one.
    """

    def why_not_eligible(self, training: bool = False) -> str | None:
        """One sentence on why the modules must be called, from their structure alone, or None.

        Args:
            training: Whether gradients or batch statistics are computed. Defaults to False.
        """
        raise NotImplementedError

    def plan(self, parameters: Parameters) -> Plan:
        """Return what the fused path executes, with its kernels chosen.

        Called only if the module is eligible and the backend is native.

        Args:
            parameters: Collects the norms and positions, to which the plan refers by number.
        """
        raise NotImplementedError

    def plan_training(self) -> Any:
        """Return what the fused path of training executes. Called only if the module is eligible for it."""
        raise NotImplementedError

    def trained(self, *features: Tensor) -> Any:
        """The plan of training, or None if nothing is trained or the modules must be called."""
        if self._why_not_trained(features) is not None:
            return None
        plan, structure = self.current_training_plan()
        if isinstance(plan, str) or not structure.is_trained(features) or structure.why_not_trained() is not None:
            return None
        return plan

    def current_training_plan(self) -> tuple[Any, Structure]:
        """The plan of training, or the sentence of :meth:`why_not_eligible`; and the structure of the module."""
        kept = _training_plans.get(self)
        if kept is None:
            structure = Structure(self)  # before the plan, should another thread change the module now
            plan = self.why_not_eligible(training=True) or self.plan_training()
            kept = _training_plans.keep(self, structure, plan)
        structure, plan = kept
        return plan, structure

    def _why_not_trained(self, features: Iterable[Tensor]) -> str | None:
        """What keeps a call from the fused path of training, whatever the module's structure."""
        if torch.compiler.is_compiling():
            return "torch.compile compiles the unfused operators in training"
        features = list(features)
        if isinstance(features[0], Tensor) and features[0].device.type not in TRAINING_DEVICES:
            return f"training is not fused on {features[0].device.type}"
        return why_not_original() or why_not_this_call(features, training=True)

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
            >>> PairwiseSelfAttention(8, 8, 3, mapping_layers=3).why_not_fused(features, features, features)
            'the mapping does not consist of two linear layers, each after a norm and an activation'
        """
        structure = Structure(self)
        tensors = [*features, *structure.tensors]
        if structure.is_trained(features):
            obstacle = self._why_not_trained(tensors) or self.why_not_eligible(training=True)
            obstacle = obstacle or structure.why_not_trained()
            return obstacle or self.why_not_accepted(features, training=True) or self.why_not_parts(training=True)
        obstacle = why_not_original() or self.why_not_eligible() or why_not_this_call(tensors)
        return obstacle or self.why_not_accepted(features) or self.why_not_parts()

    def why_not_accepted(self, features: Sequence[Tensor], training: bool = False) -> str | None:
        """What keeps the fused path from reading these features, or None."""
        return None

    def why_not_parts(self, training: bool = False) -> str | None:
        """One sentence on a part that would be called while the rest is fused, or None."""
        return None

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
